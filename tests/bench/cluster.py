"""What nodes bring, and what they cost the run: items over a Ray cluster of one-processor nodes on this machine.

    python tests/bench/cluster.py [--nodes 4] [--items 1000] [--many 10000] [--pipes]

First ``--items`` that sleep 50 ms each, on one node and on all: the seconds from the first item's end to the last.
They sleep, so that nodes do not wait for each other's processors. Then ``--many`` items that do nothing, on one node:
wall time, the run's processor time and its memory for each, against a run of a tenth. ``--pipes`` has agents as
processes, without Ray.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[n]) for n in (1, 0)]

from away_plugin import AWAY
from project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
PLUGIN = """
import time
from pydantic import BaseModel
from runner.api import Stage, Tensor, hookimpl
RUNNER_API = 1

class Rest(BaseModel):
    prompt: str
    seconds: float = 0

@hookimpl
def runner_stages():
    return [Stage("rest.rest", "rest:start", params="rest:Rest", outputs=(Tensor("numbers", "floating", ("N",)),))]

def start(ctx):
    import torch

    def one(item):
        time.sleep(item.params.seconds)
        return {"numbers": torch.zeros(4)}

    return one
"""
MANIFEST = """\
version = 1
name = "rest"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "rest"
uses = "rest.rest"
[batch]
file = "prompts.txt"
"""


@dataclass
class Ran:
    """What one run took."""

    ends: list[float] = field(default_factory=list)
    """When each item had ended, in seconds."""
    nodes: dict[str, list[float]] = field(default_factory=dict)
    """The same for each node."""
    processor: float = 0.0
    """Seconds of the run's process from the stage's start to its end."""
    peak: int = 0
    """Bytes of RAM."""

    @property
    def span(self) -> float:
        return self.ends[-1] - self.ends[0]

    @property
    def pace(self) -> float:
        return self.span / (len(self.ends) - 1)

    @property
    def rate(self) -> float:
        """Items a second while all nodes worked."""
        begun = max(ends[0] for ends in self.nodes.values())
        stopped = min(ends[-1] for ends in self.nodes.values())
        return sum(begun < end <= stopped for end in self.ends) / (stopped - begun)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--pipes", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runner-bench-") as folder:
        project = Project(Path(folder))
        _install(project)
        if asked.items:
            _speed_up(project, asked)
        if asked.many:
            _cost(project, asked)


def _speed_up(project: Project, asked: argparse.Namespace) -> None:
    for _ in range(asked.rounds):
        with _cluster(1, asked) as executor:
            one = _run(project, asked.items, 0.05, 1, executor)
        before = _load()
        with _cluster(asked.nodes, asked) as executor:
            all_ = _run(project, asked.items, 0.05, asked.nodes, executor)
        print(
            f"{asked.items} items of 50 ms, first to last, on one node: {one.span:.1f} s ({before}), "
            f"on {asked.nodes}: {all_.span:.1f} s ({_load()}): {one.span / all_.span:.2f} times as fast; "
            f"{all_.rate / one.rate:.2f} times while all worked; "
            f"items of each: {sorted(map(len, all_.nodes.values()))}",
            flush=True,
        )


def _cost(project: Project, asked: argparse.Namespace) -> None:
    few = max(2, asked.many // 10)
    with _cluster(1, asked) as executor:
        small, large = (_run(project, count, 0, 1, executor) for count in (few, asked.many))
    grown = (large.peak - small.peak) / (asked.many - few)
    print(
        f"{asked.many} items of 0 s on one node: {1000 * large.pace:.2f} ms wall and "
        f"{1000 * large.processor / asked.many:.2f} ms processor time each, {grown / 1000:.1f} kB each beyond "
        f"{few} items, {large.peak >> 20} MiB at the most, {_load()}"
    )


def _install(project: Project) -> None:
    project.plugin("rest", PLUGIN)
    project.plugin("away", AWAY)
    info = "packages/runner_ray-0.1.dist-info"
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: runner-ray\nVersion: 0.1\n")
    project.write(f"{info}/entry_points.txt", "[runner]\nray = runner_ray\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(TESTS.parent / "plugins/ray")
    project.environment["RUNNER_AGENT_SHARES_FOLDER"] = "0"
    project.write("rest.toml", MANIFEST)


@contextlib.contextmanager
def _cluster(nodes: int, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A cluster of so many nodes; yields what ``[executor]`` is to be."""
    if asked.pipes:
        yield {"uses": "away", "nodes": nodes}
        return
    process = subprocess.Popen(
        [sys.executable, str(TESTS / "plugins/ray/ray_cluster.py"), str(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.stdout is not None
    try:
        yield {"uses": "ray", "nodes": nodes, "address": json.loads(process.stdout.readline())}
    finally:
        process.communicate(timeout=60)


def _run(project: Project, count: int, seconds: float, nodes: int, executor: dict[str, Any]) -> Ran:
    """Run a batch on nodes; all of it is made anew."""
    project.write("prompts.txt", "".join(f"prompt {n}\n" for n in range(count)))
    names = ("PYTHONPATH", "RUNNER_CACHE", "PYTHONDONTWRITEBYTECODE", "RUNNER_AGENT_SHARES_FOLDER")
    env = {name: project.environment[name] for name in names}
    given = dict(executor) if executor["uses"] == "away" else {**executor, "env": env}
    sets = [f"executor.{name}={_toml(value)}" for name, value in given.items()]
    sets.append(f"stage.rest.with.seconds={seconds}")
    ran = Ran()
    options = [word for one in sets for word in ("--set", one)]
    reported = project.folder / "stderr.txt"  # a pipe that nobody reads would be full
    with (
        reported.open("w") as errors,
        project.start("run", "rest.toml", "--fresh", "--json", *options, stderr=errors) as process,
    ):
        assert process.stdout is not None
        before = 0.0
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "item_finished":
                ran.ends.append(datetime.fromisoformat(event["time"]).timestamp())
                ran.nodes.setdefault(event["node"], []).append(ran.ends[-1])
            elif event["event"] == "stage_started":
                before = _processor(process.pid)
            elif event["event"] == "stage_finished":
                ran.processor = _processor(process.pid) - before
                ran.peak = _peak(process.pid)
        if process.wait():
            sys.exit(reported.read_text())
    if len(ran.nodes) != nodes or len(ran.ends) != count:
        sys.exit(f"{len(ran.ends)} of {count} items ended, on {sorted(ran.nodes)}")
    return ran


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {json.dumps(one)}" for name, one in value.items()) + "}"
    return json.dumps(value)


def _processor(pid: int) -> float:
    """Seconds of processor time that a process has taken, without its children."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
