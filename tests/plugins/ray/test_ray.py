"""Runs on a real Ray cluster of several nodes on this machine, whose nodes come, go and are full."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from nodes import BEHAVING, SENT, agents, digests, made, prompts
from toy_plugin import STAGES
from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from project import Outcome, Project

pytest.importorskip("ray")
HERE = Path(__file__).parent
PLUGIN = HERE.parents[2] / "plugins/ray"
WAITING = '[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n'


class Cluster:
    """A cluster in a process of its own."""

    def __init__(self, nodes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_cluster.py"), str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        self.address: str = self._answer()

    def tell(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes of one processor each, and a head without any."""
    made = Cluster(3)
    yield made
    made.close()


def ray(project: Project, cluster: Cluster, items: str, **parameters: Any) -> None:
    """Install the plugins, and write ``toy.toml`` and ``ray.toml``: the same, for here and for the cluster."""
    project.plugin("toy", BEHAVING)
    info = "packages/runner_ray-0.1.dist-info"
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: runner-ray\nVersion: 0.1\n")
    project.write(f"{info}/entry_points.txt", "[runner]\nray = runner_ray\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(PLUGIN)
    names = ("PYTHONPATH", "RUNNER_CACHE", "TOY_FLAGS", "PYTHONDONTWRITEBYTECODE")
    env = {name: project.environment[name] for name in names} | SENT
    given = {"uses": "ray", "address": cluster.address, "nodes": 3, **parameters}
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
    lines += ["[executor.env]", *(f"{name} = {json.dumps(value)}" for name, value in env.items())]
    project.write("toy.toml", STAGES + items)
    project.write("ray.toml", STAGES + items + "[executor]\n" + "\n".join(lines) + "\n")


def local(project: Project) -> dict[str, str]:
    """What a run on this machine leaves; it is moved away."""
    (project.folder / "flags/slow.go").touch()
    outcome = project.runner("run", "toy.toml")
    assert outcome.code == 0, outcome
    found = digests(project.folder / "runs/toy")
    (project.folder / "runs").rename(project.folder / "local")
    for flag in (project.folder / "flags").iterdir():
        flag.unlink()
    return found


def run(project: Project) -> Outcome:
    return project.runner("run", "ray.toml", "--json", seconds=150)


def test_three_nodes_make_what_one_machine_makes_and_each_once(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, WAITING + prompts(12))
    before = local(toy)
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        events: list[dict[str, Any]] = []
        for event in map(json.loads, process.stdout):
            events.append(event)
            if [e["event"] for e in events].count("node_joined") == 3:
                (toy.folder / "flags/slow.go").touch()
        process.wait(60)
    assert process.returncode == 0, events[-1]
    assert digests(toy.folder / "runs/toy") == before
    done = [e for e in events if e["event"] == "item_finished"]
    assert len(done) == len({(e["stage"], e["item"]) for e in done}) == 26
    assert len({e["node"] for e in done}) > 1
    wait_until(lambda: not agents(toy), 30, "no agent is left")


def begun(project: Project, process: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], Any]:
    """The events of a run until its item that waits has begun, and those that follow."""
    assert process.stdout is not None
    reported = map(json.loads, process.stdout)
    seen: list[dict[str, Any]] = []
    for event in reported:
        seen.append(event)
        if (event["event"], event.get("item")) == ("progress", "slow"):
            break
    return seen, reported


def test_a_node_that_is_removed_without_grace_and_one_that_joins(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, WAITING + prompts(8))
    before = local(toy)
    with toy.start("run", "ray.toml", "--json") as process:
        events, reported = begun(toy, process)
        victim = events[-1]["node"]
        id_ = next(id_ for id_ in cluster.tell("ids") if id_[:6] == victim.rpartition("-")[2])
        cluster.tell(f"remove {id_}")
        joined = cluster.tell("add")
        for event in reported:  # it takes part while the stage runs
            events.append(event)
            if event["event"] == "node_joined" and event["node"].endswith(joined[:6]):
                break
        (toy.folder / "flags/slow.go").touch()
        events += reported
        process.wait(100)
    assert process.returncode == 0, events[-1]
    (lost,) = [e for e in events if e["event"] == "node_lost"]
    assert (lost["node"], "its Ray node does not answer" in lost["reason"]) == (victim, True)
    assert digests(toy.folder / "runs/toy") == before
    done = [(e["stage"], e["item"]) for e in events if e["event"] == "item_finished"]
    assert len(done) == len({*done}) == 18
    wait_until(lambda: not agents(toy), 30, "no agent is left")


def test_agents_end_with_a_run_that_is_killed_and_it_goes_on(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(4) + WAITING)
    before = local(toy)
    with toy.start("run", "ray.toml", "--json") as process:
        handoffs = toy.folder / "runs/toy/handoff/make"
        wait_until(lambda: len(list(handoffs.glob("*.safetensors"))) == 4, 90, "the others are done")
        process.kill()
        process.communicate()
    wait_until(lambda: not agents(toy), 10, "no agent is left")
    (toy.folder / "flags/slow.go").touch()
    outcome = run(toy)
    assert outcome.code == 0, outcome
    assert [e["item"] for e in outcome.of("item_finished") if e["stage"] == "make"] == ["slow"]
    assert digests(toy.folder / "runs/toy") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_frees_the_cluster(toy: Project, cluster: Cluster, number: signal.Signals) -> None:
    ray(toy, cluster, WAITING, nodes=1)
    with toy.start("run", "ray.toml", "--json") as process:
        _, reported = begun(toy, process)
        process.send_signal(number)
        asked = time.monotonic()
        events = list(reported)
        process.wait(15)
    assert time.monotonic() - asked < 15
    assert process.returncode == 130, events[-1]
    wait_until(lambda: not agents(toy), 10, "no agent is left")


def test_a_run_waits_for_nodes_that_there_are_not_yet(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(2), nodes=4)
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        reported = map(json.loads, process.stdout)
        why = "3 of 4 agents run on the Ray cluster; there is no other node with 1 CPU"
        before = []
        for event in reported:
            before.append(event["event"])
            if event.get("reason") == why:
                break
        cluster.tell("add")
        events = list(reported)
        process.wait(60)
    assert process.returncode == 0, events[-1]
    assert "node_joined" not in before
    assert "node_joined" in [e["event"] for e in events]


def test_a_run_waits_while_others_use_the_cluster(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(2), nodes=1)
    cluster.tell("hold")
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        reported = map(json.loads, process.stdout)
        try:
            assert any(
                event["event"] == "waiting" and event["reason"].endswith("more wait for 1 CPU")
                for event in reported
            )
        finally:
            cluster.tell("free")
        events = list(reported)
        process.wait(60)
    assert process.returncode == 0, events[-1]
    assert len([e for e in events if e["event"] == "item_finished" and e["status"] == "done"]) == 4


DEADLY = """
[[item]]
id = "deadly"
prompt = "deadly"
behave = "die"
[[item]]
id = "slayer"
prompt = "x"
behave = "slay"
"""


def test_items_that_kill_their_worker_or_their_agent_fail_alone(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(4) + DEADLY, nodes=2)
    outcome = run(toy)
    assert outcome.code == 1, outcome
    failed = {e["item"]: e["error"] for e in outcome.of("item_finished") if e["status"] == "failed"}
    assert failed.keys() == {"deadly", "slayer"}
    assert "given up after a second worker died" in failed["deadly"]
    assert "given up after a second node failed" in failed["slayer"]
    assert len(outcome.of("node_lost")) == 2
    assert len(made(outcome)) == 8
    wait_until(lambda: not agents(toy), 30, "no agent is left")


def test_a_cluster_without_its_head_is_given_up(toy: Project) -> None:
    """Ray itself would end the process after a minute, without a word to the journal."""
    cluster = Cluster(1)
    ray(toy, cluster, WAITING, nodes=1)
    with toy.start("run", "ray.toml", "--json") as process:
        _, reported = begun(toy, process)
        cluster.tell("behead")
        events = list(reported)
        process.wait(60)
        assert process.stderr is not None
        stderr = process.stderr.read()
    assert process.returncode == events[-1]["exit_code"] == 4, stderr
    assert "the head of the Ray cluster has not answered for 20 s" in stderr
    with contextlib.suppress(subprocess.TimeoutExpired):
        cluster.close()
    wait_until(lambda: not agents(toy), 60, "no agent is left")


def test_a_node_without_a_plugin_is_left_out(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(2), nodes=1)
    text = (toy.folder / "ray.toml").read_text()
    packages = json.dumps(toy.environment["PYTHONPATH"])
    toy.write("ray.toml", text.replace(packages, json.dumps(str(PLUGIN.parents[1]))))
    outcome = run(toy)
    assert outcome.code == 4, outcome
    assert "no node can take part:" in outcome.stderr
    assert "stage 'toy.make' is offered by no installed plugin" in outcome.stderr


def test_a_cluster_that_is_not_there_is_reported_of(toy: Project) -> None:
    class Nowhere:
        address = "127.0.0.1:1"

    ray(toy, Nowhere(), prompts(1))  # type: ignore[arg-type]
    outcome = run(toy)
    assert outcome.code == 4, outcome
    assert "executor 'ray': ConnectionError: no Ray cluster answers at 127.0.0.1:1" in outcome.stderr
    assert "Traceback" not in outcome.stderr


BIG = """
from pydantic import BaseModel
from runner.api import File, Stage, Tensor, hookimpl
RUNNER_API = 1

class Big(BaseModel):
    prompt: str
    seed: int = 0

@hookimpl
def runner_stages():
    numbers = (Tensor("numbers", "floating", ("N",)),)
    return [
        Stage("big.make", "big:make", params="big:Big", outputs=numbers),
        Stage("big.sum", "big:total", inputs=numbers, outputs=(File("page", ".txt"),)),
    ]

def make(ctx):
    import torch
    return lambda item: {"numbers": torch.full((10_000_000,), float(item.params.seed))}

def total(ctx):
    return lambda item: {"page": str(item.inputs["numbers"].sum().item()).encode()}
"""


def test_handoffs_larger_than_the_store_leave_the_run_small(toy: Project, cluster: Cluster) -> None:
    """Ten of 40 MB through stores of 100 MB: they travel in pieces, and are never held as a whole."""
    items = "".join(f'[[item]]\nid = "i{n}"\nprompt = "x"\nseed = {n}\n' for n in range(10))
    ray(toy, cluster, items, nodes=2)
    toy.plugin("big", BIG)
    for name in ("toy.toml", "ray.toml"):
        text = (toy.folder / name).read_text()
        toy.write(name, text.replace("toy.make", "big.make").replace("toy.write", "big.sum"))
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        events, most = [], 0
        for event in map(json.loads, process.stdout):
            events.append(event)
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = max(most, int(status.partition("VmHWM:")[2].split()[0]) << 10)
        process.wait(60)
    assert process.returncode == 0, events[-1]
    assert 0 < most < 500 << 20
    print(f"the run held {most >> 20} MiB")
    toy.runner("run", "toy.toml", "--runs-dir", "local")
    assert digests(toy.folder / "runs/toy") == digests(toy.folder / "local/toy")
