"""Runs over several nodes: the same bytes as on one machine, each made once, whatever befalls the nodes."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest
from nodes import SENT, agents, away, digests, local, made, nodes_of, prompts, run
from pages import data_of
from waiting import wait_until

from runner.events import ItemFinished
from runner.rundir.journal import read_journal

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize("environment", [{}, SENT], ids=["shared", "sent"])
def test_three_nodes_make_what_one_machine_makes_and_each_once(
    toy: Project, environment: dict[str, str]
) -> None:
    toy.environment |= environment
    away(toy, 3, prompts(12))
    before = local(toy)
    outcome = run(toy)
    assert outcome.code == 0, outcome
    assert "a library has something to say" in outcome.stderr  # stdout is for data
    assert digests(toy.folder / "runs/toy") == before
    everything = [(s, f"prompt-{n}") for s in ("make", "write") for n in range(12)]
    assert made(outcome) == sorted(everything)
    assert nodes_of(outcome) == {"node-0", "node-1", "node-2"}
    assert {e["node"]: e["stages"] for e in outcome.of("node_joined")} == {
        f"node-{n}": {"make": "resident", "write": "resident"} for n in range(3)
    }
    journal = [e for e in read_journal(toy.folder / "runs/toy/journal.jsonl") if isinstance(e, ItemFinished)]
    assert len(journal) == 24
    assert all(event.node for event in journal)
    assert len(list((toy.folder / "runs/toy/logs").glob("*-make-node-?.log"))) <= 3
    assert not list((toy.folder / "runs/toy").glob(".incoming*"))
    assert not list((toy.folder / "runs/toy").glob(".shared*"))
    assert agents(toy) == []
    (shown,) = json.loads(toy.invoke("runs", "show", "toy", "--json").stdout)["runs"]
    assert sum(node["done"] for node in shown["nodes"]) == 24
    assert {node["name"] for node in shown["nodes"]} == {"node-0", "node-1", "node-2"}
    (page,) = data_of(toy.folder / "runs/toy/report.html")["runs"]
    assert [(n["name"], n["done"], n["state"]) for n in page["nodes"]] == [
        (n["name"], n["done"], "joined") for n in shown["nodes"]
    ]
    assert "node-1" in toy.invoke("runs", "show", "toy").stdout
    assert " on node-2" in outcome.stderr
    # and it finds it done, here and there
    again = run(toy)
    assert (again.code, again.of("stage_started"), again.of("node_joined")) == (0, [], [])
    assert toy.runner("run", "toy.toml", "--json").of("stage_started") == []


def test_who_goes_on_where_another_was_stopped_makes_the_rest(sent: Project) -> None:
    """From here to nodes, and back."""
    away(sent, 2, prompts(6))
    before = local(sent)
    sent.runner("run", "toy.toml", "--prompt", "prompt 0", "--prompt", "prompt 1")
    outcome = run(sent, "--prompt", "prompt 1", "--prompt", "prompt 2")
    assert [e["item"] for e in outcome.of("item_finished")] == ["prompt-2"] * 2
    sent.runner("run", "toy.toml")
    assert digests(sent.folder / "runs/toy") == before


BEHAVING = """
[[item]]
id = "bad"
prompt = "bad"
behave = "raise"
[[item]]
id = "deadly"
prompt = "deadly"
behave = "die"
[[item]]
id = "twin"
prompt = "prompt 3"
"""


def test_items_that_raise_or_kill_their_worker_fail_alone(sent: Project) -> None:
    away(sent, 2, prompts(8) + BEHAVING)
    outcome = run(sent)
    assert outcome.code == 1, outcome
    failed = {e["item"]: e for e in outcome.of("item_finished") if e["status"] == "failed"}
    assert failed.keys() == {"bad", "deadly"}
    assert "ValueError: bad cannot be made" in failed["bad"]["error"]
    assert "Traceback" in failed["bad"]["traceback"]
    assert "given up after a second worker died" in failed["deadly"]["error"]
    assert {e["items"][0] for e in outcome.of("worker_died")} == {"deadly"}
    assert outcome.of("node_lost") == []
    assert len(made(outcome)) == 18
    assert [e["failed"] for e in outcome.of("stage_finished")] == [2, 0]
    assert len([name for name in sent.outputs("toy") if name.endswith(".txt")]) == 9
    again = run(sent, "--retry-failed")
    assert {e["item"] for e in again.of("item_finished")} == {"bad", "deadly"}


def test_an_item_that_kills_its_agent_fails_alone(sent: Project) -> None:
    away(sent, 2, prompts(6) + '[[item]]\nid = "slayer"\nprompt = "x"\nbehave = "slay"\n')
    outcome = run(sent)
    assert outcome.code == 1, outcome
    (failed,) = [e for e in outcome.of("item_finished") if e["status"] == "failed"]
    assert failed["item"] == "slayer"
    assert "given up after a second node failed while it made it" in failed["error"]
    lost = outcome.of("node_lost")
    assert len(lost) == 2
    assert lost[-1]["items"] == ["slayer"]
    assert len(made(outcome)) == 12


def test_of_a_node_that_is_killed_another_makes_what_was_in_flight(sent: Project) -> None:
    waiting = '[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n'
    away(sent, 3, waiting + prompts(8))
    before = local_without_waiting(sent)
    flags = sent.folder / "flags"
    with sent.start("run", "away.toml", "--json") as process:
        assert process.stdout is not None
        reported = map(json.loads, process.stdout)
        events = []
        for event in reported:
            events.append(event)
            if (event["event"], event.get("item")) == ("progress", "slow"):
                break
        victim = events[-1]["node"]
        os.kill(int((flags / f"{victim}.pid").read_text()), signal.SIGKILL)
        (flags / "slow.go").touch()
        events += reported
        process.wait(100)
    assert process.returncode == 0, events
    (lost,) = [e for e in events if e["event"] == "node_lost"]
    assert lost["node"] == victim
    assert "slow" in lost["items"]
    assert digests(sent.folder / "runs/toy") == before
    done = [(e["stage"], e["item"]) for e in events if e["event"] == "item_finished"]
    assert sorted(done) == sorted({*done})
    assert len(done) == 18
    wait_until(lambda: not agents(sent), 30, "no agent is left")


def local_without_waiting(project: Project) -> dict[str, str]:
    (project.folder / "flags/slow.go").touch()
    found = local(project)
    for flag in (project.folder / "flags").iterdir():
        flag.unlink()
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once_and_it_goes_on_later(sent: Project, number: signal.Signals) -> None:
    waiting = '[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n'
    away(sent, 2, prompts(3) + waiting)
    before = local_without_waiting(sent)
    with sent.start("run", "away.toml", "--json") as process:
        wait_until((sent.folder / "flags/slow").exists, 60, "the item has begun")
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=15)
    assert process.returncode == 130, stderr
    assert json.loads(stdout.splitlines()[-1])["exit_code"] == 130
    wait_until(lambda: not agents(sent), 10, "no agent is left")
    (sent.folder / "flags/slow.go").touch()
    outcome = run(sent)
    assert outcome.code == 0, outcome
    assert digests(sent.folder / "runs/toy") == before


SAVING = """
import os, pathlib, time
from pydantic import BaseModel
from runner.api import File, Stage, hookimpl
RUNNER_API = 1

class Count(BaseModel):
    prompt: str

@hookimpl
def runner_stages():
    return [Stage("saving.count", "saving:start", params="saving:Count", outputs=(File("page", ".txt"),))]

def start(ctx):
    import torch

    def one(item):
        begin = item.saved.step if item.saved else 0
        total = float(item.saved.state[0]) if item.saved else 0.0
        for step in range(begin + 1, 5):
            total += step
            item.step(step, 4, torch.tensor([total]))
            flag = pathlib.Path(os.environ["TOY_FLAGS"], item.id)
            while step == 2 and not flag.with_suffix(".go").exists():
                flag.touch()
                item.step(step, 4, torch.tensor([total]))
                time.sleep(0.01)
        return {"page": f"{total}".encode()}

    return one
"""


@pytest.mark.parametrize("group", [False, True], ids=["to the run", "Ctrl-C"])
def test_what_was_saved_when_it_was_stopped_comes_back_and_another_node_goes_on_from_there(
    sent: Project, group: bool
) -> None:
    """A terminal's Ctrl-C goes to agents on this machine too: they leave it to the run."""
    away(sent, 1, "")
    sent.plugin("saving", SAVING)
    manifest = (
        'version = 1\nname = "toy"\n[budget]\ndevice = "cpu"\nthreads = 1\n[[stage]]\nname = "count"\n'
        'uses = "saving.count"\n[[item]]\nid = "slow"\nprompt = "x"\n[executor]\nuses = "away"\n'
    )
    sent.write("away.toml", manifest)
    with sent.start("run", "away.toml", "--json", start_new_session=True) as process:
        wait_until((sent.folder / "flags/slow").exists, 60, "the item has begun")
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=15)
    assert process.returncode == 130, stderr
    assert len(list((sent.folder / "runs/toy/state/count").glob("*.safetensors"))) == 1
    (sent.folder / "flags/slow.go").touch()
    outcome = run(sent)
    assert outcome.code == 0, outcome
    (resumed,) = outcome.of("resumed")
    assert (resumed["item"], resumed["step"]) == ("slow", 2)
    assert next(d for n, d in sent.outputs("toy").items() if n.endswith(".txt")) == b"10.0"
    assert not list((sent.folder / "runs/toy/state/count").glob("*.safetensors"))


def test_agents_end_with_a_driver_that_is_killed_and_nothing_finished_is_made_again(sent: Project) -> None:
    waiting = '[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n'
    away(sent, 2, prompts(4) + waiting)
    before = local_without_waiting(sent)
    with sent.start("run", "away.toml", "--json") as process:
        handoffs = sent.folder / "runs/toy/handoff/make"
        wait_until(lambda: len(list(handoffs.glob("*.safetensors"))) == 4, 60, "the others are done")
        process.kill()
        process.communicate()
    wait_until(lambda: not agents(sent), 10, "no agent is left")
    (sent.folder / "flags/slow.go").touch()
    outcome = run(sent)
    assert outcome.code == 0, outcome
    assert [e["item"] for e in outcome.of("item_finished") if e["stage"] == "make"] == ["slow"]
    assert digests(sent.folder / "runs/toy") == before


def test_the_first_failure_stops_it_where_that_is_asked_for(sent: Project) -> None:
    away(sent, 2, prompts(4) + BEHAVING)
    outcome = run(sent, "--fail-fast")
    assert outcome.code == 1, outcome
    assert "(--fail-fast)" in outcome.stderr
