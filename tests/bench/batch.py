"""What the engine costs a large batch: items that do next to nothing, through two stages.

    python tests/bench/batch.py [--items 10000]

Prints the seconds an item that are not the stage's own, the supervisor's peak of RAM, how long it takes to
find that there is nothing to do, and how long an interrupted run takes until its first item.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil
from project import Project

PLUGIN = """
from __future__ import annotations
from pydantic import BaseModel, ConfigDict
from runner.api import File, Stage, Tensor, hookimpl

RUNNER_API = 1


class Make(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str


@hookimpl
def runner_stages():
    vector = Tensor("vector", "floating", ("N",))
    return (
        Stage(name="quick.make", params="quick:Make", outputs=(vector,), start="quick:start_make"),
        Stage(name="quick.tell", inputs=(vector,), outputs=(File("page", ".txt"),), start="quick:start_tell"),
    )


def start_make(ctx):
    import torch

    def one(item):
        item.step(1, 1)
        return {"vector": torch.full((4,), float(len(item.params.prompt)))}

    return one


def start_tell(ctx):
    return lambda item: {"page": str(item.inputs["vector"].tolist()).encode()}
"""
MANIFEST = """\
version = 1
name = "quick"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "make"
uses = "quick.make"
[[stage]]
name = "tell"
uses = "quick.tell"
[batch]
file = "prompts.txt"
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    count = parser.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        project.plugin("quick", PLUGIN)
        project.write("quick.toml", MANIFEST)
        project.write("prompts.txt", "".join(f"prompt {n}\n" for n in range(count)))
        _measure_whole(project, count)
        _measure_nothing(project)
        _measure_resumed(project)


def _measure_whole(project: Project, count: int) -> None:
    started, cpu, peak = time.monotonic(), 0.0, 0
    process = project.start("run", "quick.toml", "--json", stderr=None)
    supervisor = psutil.Process(process.pid)
    assert process.stdout is not None
    first: dict[str, float] = {}
    own = 0.0
    for n, line in enumerate(process.stdout):
        event = json.loads(line)
        if event["event"] == "item_finished":
            first.setdefault(event["stage"], time.monotonic())
            own += event["seconds"]
        if event["event"] == "stage_finished":
            seconds = time.monotonic() - first[event["stage"]]
            print(f"{event['stage']}: {seconds / (count - 1) * 1000:.2f} ms an item")
        if n % 100 == 0:
            peak = max(peak, _peak(supervisor.pid))
            cpu = sum(supervisor.cpu_times()[:2])
    process.wait()
    assert process.returncode == 0
    total = time.monotonic() - started
    print(f"{count} items, two stages: {total:.1f} s, of which in the stages {own:.1f} s")
    print(f"supervisor: {peak / 2**20:.0f} MiB at most, {cpu / count * 1000:.2f} ms of CPU an item")


def _peak(pid: int) -> int:
    """Bytes that a process has had in memory at most."""
    reported = Path(f"/proc/{pid}/status").read_text()
    return int(reported.partition("VmHWM:")[2].split()[0]) << 10


def _measure_nothing(project: Project) -> None:
    started = time.monotonic()
    outcome = project.runner("run", "quick.toml", "--json")
    assert (outcome.code, outcome.of("stage_started")) == (0, [])
    print(f"nothing to do: {time.monotonic() - started:.2f} s")


def _measure_resumed(project: Project) -> None:
    process = project.start("run", "quick.toml", "--json", "--set", "name=again", stderr=None)
    assert process.stdout is not None
    for _, line in zip(range(500), process.stdout, strict=False):
        assert line
    process.send_signal(signal.SIGKILL)
    process.communicate()
    started = time.monotonic()
    process = project.start("run", "quick.toml", "--json", "--set", "name=again", stderr=None)
    assert process.stdout is not None
    next(line for line in process.stdout if '"item_finished"' in line)
    print(f"an interrupted run: {time.monotonic() - started:.2f} s until its first item is done")
    process.kill()
    process.communicate()


if __name__ == "__main__":
    main()
