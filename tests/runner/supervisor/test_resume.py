"""Interrupted in the middle of an item: the next run goes on from its last saved step, and ends the same."""

from __future__ import annotations

import json
import signal
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import walking_plugin
from waiting import wait_until

from runner.events import ItemFinished, Resumed
from runner.rundir.journal import read_journal

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from project import Project


@pytest.fixture
def walk(project: Project) -> Project:
    project.plugin("walk", walking_plugin.WALK)
    project.write("walk.toml", walking_plugin.MANIFEST)
    (project.folder / "flags").mkdir()
    project.environment["WALK"] = str(project.folder / "flags")
    return project


def held(walk: Project, *arguments: str) -> subprocess.Popen[str]:
    """A run whose second item is held after its tenth step."""
    process = walk.start("run", "walk.toml", *arguments)
    flag = walk.folder / "flags/held"
    wait_until(lambda: flag.exists() or process.poll() is not None, 60, "the item is held")
    assert process.poll() is None, process.communicate()
    return process


def go_on(walk: Project) -> list[int]:
    """Run again without a hold; the steps that the held item did then."""
    trace = walk.folder / "flags/held.steps"
    trace.unlink()
    (walk.folder / "flags/go").touch()
    outcome = walk.runner("run", "walk.toml", "--json")
    assert outcome.code == 0, outcome
    assert [e["item"] for e in outcome.of("item_finished")] == ["held", "free", "held"]
    return [int(line) for line in trace.read_text().split()]


def undisturbed(walk: Project) -> dict[str, bytes]:
    (walk.folder / "flags/go").touch()
    outcome = walk.runner("run", "walk.toml", "--runs-dir", "others")
    assert outcome.code == 0, outcome
    return {path.name: path.read_bytes() for path in (walk.folder / "others/walk/outputs").iterdir()}


def states(walk: Project) -> list[Path]:
    return [path for path in (walk.folder / "runs/walk/state").rglob("*") if path.is_file()]


def seconds_between(*events: dict[str, Any]) -> float:
    first, last = (datetime.fromisoformat(event["time"]) for event in events)
    return (last - first).total_seconds()


def test_ctrl_c_keeps_the_last_finished_step(walk: Project) -> None:
    process = held(walk)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert len(states(walk)) == 1
    planned = walk.invoke("plan", "walk.toml")
    assert "walk: held goes on from step 10 of 20" in planned.stdout
    assert "free goes on" not in planned.stdout
    todo = json.loads(walk.invoke("plan", "walk.toml", "--json").stdout)["stages"][0]["todo"]
    assert [task["saved"] for task in todo] == [{"step": 10, "steps": 20}]
    assert go_on(walk) == list(range(11, 21))
    assert states(walk) == []
    journal = list(read_journal(walk.folder / "runs/walk/journal.jsonl"))
    (resumed,) = (event for event in journal if isinstance(event, Resumed))
    assert (resumed.stage, resumed.item, resumed.step, resumed.steps) == ("walk", "held", 10, 20)
    # what an item took counts what went into the state that it went on from
    made = [e for e in journal if isinstance(e, ItemFinished) and (e.stage, e.item) == ("walk", "held")]
    assert made[-1].seconds > resumed.seconds > 0
    assert walk.outputs("walk") == undisturbed(walk)


@pytest.mark.cold
def test_a_killed_worker_is_started_again_and_goes_on_from_the_last_checkpoint(walk: Project) -> None:
    process = held(walk, "--json")
    server = psutil.Process(process.pid).children()[0]
    trace = walk.folder / "flags/held.steps"
    trace.unlink()
    (walk.folder / "flags/go").touch()
    server.children()[0].kill()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    events = [json.loads(line) for line in stdout.splitlines()]
    died = next(n for n, event in enumerate(events) if event["event"] == "worker_died")
    steps = [e for e in events[:died] if e["event"] == "progress" and e["item"] == "held"]
    made = next(e for e in events if e["event"] == "item_finished" and e["item"] == "held")
    assert made["seconds"] >= seconds_between(
        steps[0], steps[-1]
    )  # what the worker that died took counts too
    assert [int(line) for line in trace.read_text().split()] == list(range(9, 21))
    assert walk.outputs("walk") == undisturbed(walk)


def test_a_killed_fork_server_is_started_again(walk: Project) -> None:
    process = held(walk)
    (walk.folder / "flags/go").touch()
    psutil.Process(process.pid).children()[0].kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert walk.outputs("walk") == undisturbed(walk)


def test_everything_killed_loses_no_more_than_a_checkpoint_interval(walk: Project) -> None:
    process = held(walk)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    psutil.wait_procs(children, timeout=10)
    assert go_on(walk) == list(range(9, 21))
    assert walk.outputs("walk") == undisturbed(walk)


@pytest.mark.parametrize("harm", ["flipped", "cut", "threads"])
def test_a_state_that_is_of_no_use_is_discarded_with_a_line(walk: Project, harm: str) -> None:
    process = held(walk)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    (state,) = states(walk)
    data = bytearray(state.read_bytes())
    if harm == "flipped":
        data[-1] ^= 1
        state.write_bytes(data)
    elif harm == "cut":
        state.write_bytes(data[:-9])
    (walk.folder / "flags/go").touch()
    more = ("--set", "budget.threads=2") if harm == "threads" else ()
    outcome = walk.runner("run", "walk.toml", *more)
    assert outcome.code == 0, outcome
    words = {
        "flipped": "its bytes are not those that were written",
        "cut": "it is cut off",
        "threads": "it was saved with threads 1, and this is 2",
    }
    assert f"walk held starts again: its saved state cannot be used, {words[harm]}" in outcome.stderr
    pages = {n: d for n, d in walk.outputs("walk").items() if n.endswith(".txt")}
    assert pages.items() <= undisturbed(walk).items()


def test_a_state_with_nan_is_not_gone_on_from(walk: Project) -> None:
    arguments = ("--set", "item.held.poison=3", "--set", "item.held.hold=0")
    outcome = walk.runner("run", "walk.toml", "--json", *arguments)
    assert outcome.code == 1, outcome
    assert "NaN" in next(e["error"] for e in outcome.of("item_finished") if e["error"])
    assert states(walk) == []
