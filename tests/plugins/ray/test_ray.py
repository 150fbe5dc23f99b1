"""Runs on a real Ray cluster of several nodes on this machine, whose nodes come, go and are full."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from nodes import agents, digests, prompts
from plugins.ray.ray_runs import WAITING, Cluster, local, ray, run
from waiting import wait_until

if TYPE_CHECKING:
    from project import Project

pytest.importorskip("ray")


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
    """And an agent that was killed is started anew on its node."""
    ray(toy, cluster, prompts(4) + DEADLY + WAITING, nodes=2)
    with toy.start("run", "ray.toml", "--json") as process:
        assert process.stdout is not None
        events: list[dict[str, Any]] = []
        for event in map(json.loads, process.stdout):
            events.append(event)
            lost = {e["node"] for e in events if e["event"] == "node_lost"}
            if event["event"] == "node_joined" and event["node"] in lost:
                (toy.folder / "flags/slow.go").touch()
        process.wait(60)
    assert process.returncode == 1, events[-1]
    done = [e for e in events if e["event"] == "item_finished"]
    failed = {e["item"]: e["error"] for e in done if e["status"] == "failed"}
    assert failed.keys() == {"deadly", "slayer"}
    assert "given up after a second worker died" in failed["deadly"]
    assert "given up after a second node failed" in failed["slayer"]
    assert len([e for e in events if e["event"] == "node_lost"]) == 2
    assert len(done) - len(failed) == 10
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
