"""Workers as processes: one at a time, none left behind, and what their end means."""

# mypy: disable-error-code="misc"

from __future__ import annotations

import json
import os
import pty
import signal
from typing import TYPE_CHECKING

import psutil
import pytest
from toy_plugin import BEHAVING
from waiting import wait_until

from runner.events import RunFinished
from runner.rundir.journal import read_journal

if TYPE_CHECKING:
    import subprocess

    from project import Project


cold = pytest.mark.cold  # for those that look at the processes of a run


def running(toy: Project, behave: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """A run that has come to the item which waits or hangs, and all of its processes."""
    toy.write("toy.toml", BEHAVING.format(behave))
    process = toy.start("run", "toy.toml")
    flag = toy.folder / "flags" / "item"
    wait_until(lambda: flag.exists() or process.poll() is not None, 60, "the item has begun")
    assert process.poll() is None, process.communicate()
    return process, psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


@cold
@pytest.mark.parametrize("behave", ["wait", "hang"])
def test_nothing_outlives_a_killed_supervisor(toy: Project, behave: str) -> None:
    process, children = running(toy, behave)
    assert len(children) == 2  # the fork server and its worker
    process.kill()
    process.communicate()
    wait_until(lambda: gone(children), 2, "every process has ended")

    (toy.folder / "flags/item.go").touch()
    if behave == "wait":
        outcome = toy.runner("run", "toy.toml", "--json")
        assert outcome.code == 0, outcome
        assert [e["items"] for e in outcome.of("stage_started")] == [1, 2]


@cold
def test_ctrl_c_stops_at_a_step_and_the_next_run_goes_on(toy: Project) -> None:
    process, children = running(toy, "wait")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130, stderr
    assert "stopped in stage 'make'" in stderr
    assert gone(children)
    (toy.folder / "flags/item.go").touch()
    outcome = toy.runner("run", "toy.toml", "--json")
    assert [e["items"] for e in outcome.of("stage_started")] == [1, 2], outcome


@cold
def test_the_second_signal_does_not_wait_for_a_step(toy: Project) -> None:
    process, children = running(toy, "hang")
    process.send_signal(signal.SIGTERM)
    journal = toy.folder / "runs/toy/journal.jsonl"
    assert journal.exists()
    with pytest.raises(Exception, match="timed out"):
        process.communicate(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert gone(children)


def test_a_run_directory_has_one_runner(toy: Project) -> None:
    process, _ = running(toy, "wait")
    second = toy.runner("run", "toy.toml")
    assert second.code == 6, second
    assert f"process {process.pid} on " in second.stderr
    (toy.folder / "flags/item.go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_wait_queues_behind_the_holder(toy: Project) -> None:
    process, _ = running(toy, "wait")
    second = toy.start("run", "toy.toml", "--wait", "--json")
    assert second.stdout is not None
    waiting = json.loads(second.stdout.readline())
    assert waiting["event"] == "waiting"
    assert f"process {process.pid} on " in waiting["reason"]
    (toy.folder / "flags/item.go").touch()
    process.communicate(timeout=60)
    stdout, stderr = second.communicate(timeout=60)
    assert (process.returncode, second.returncode) == (0, 0), stderr
    assert "stage_started" not in stdout  # the first has made all of it


def test_a_closed_terminal_ends_nothing(toy: Project) -> None:
    toy.write("toy.toml", BEHAVING.format("wait"))
    ours, theirs = pty.openpty()
    process = toy.start("run", "toy.toml", stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    wait_until((toy.folder / "flags/item").exists, 60, "the item has begun")
    os.close(ours)  # what is written from now on fails
    process.send_signal(signal.SIGHUP)
    (toy.folder / "flags/item.go").touch()
    process.wait(60)
    assert process.returncode == 0
    *_, end = read_journal(toy.folder / "runs/toy/journal.jsonl")
    assert isinstance(end, RunFinished)
    assert end.exit_code == 0


@cold
def test_never_two_workers_at_once(toy: Project) -> None:
    toy.write("toy.toml", BEHAVING.format("well"))
    process = toy.start("run", "toy.toml")
    most = 0
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            servers = parent.children()
            most = max(most, sum(len(server.children()) for server in servers))
        except psutil.NoSuchProcess:
            continue
    process.communicate()
    assert process.returncode == 0
    assert most == 1


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        ("die", "its worker was ended by signal 9 while it made 'item'"),
        ("exit", "its worker exited with code 3"),
        ("hang", "item 'item' took longer than its timeout of 1 s"),
    ],
)
def test_a_stage_that_gets_nothing_done_is_exit_7(toy: Project, behave: str, words: str) -> None:
    toy.write("toy.toml", BEHAVING.format(behave).replace('"first"', '"item0"'))
    alone = ("--set", "stage.make.timeout=1", "--set", f"item.item0.behave={behave}")
    outcome = toy.runner("run", "toy.toml", "--json", *alone)
    assert outcome.code == 7, outcome
    assert words in outcome.stderr
    assert outcome.of("run_finished")[0]["exit_code"] == 7
    outcome = toy.runner(
        "run", "toy.toml", "--set", "item.item.behave=well", "--set", "item.item0.behave=well"
    )
    assert outcome.code == 0, outcome


def test_a_plugin_in_the_current_folder_works_in_workers_too(toy: Project) -> None:
    for path in (toy.folder / "packages").iterdir():
        path.rename(toy.folder / path.name)
    toy.environment.pop("PYTHONPATH")
    outcome = toy.runner("run", "toy.toml")  # python -m runner has the current folder on its path
    assert outcome.code == 0, outcome


STARTS_BADLY = """
from runner.api import Stage, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    return [Stage(name="bad.start", outputs=(Text("t"),), start="bad:start", params="toy:Make")]

def start(ctx):
    print("last words")
    raise RuntimeError("no heart")
"""


def test_a_stage_that_cannot_start_is_exit_7_with_the_end_of_its_log(toy: Project) -> None:
    toy.plugin("bad", STARTS_BADLY)
    toy.write("toy.toml", BEHAVING.format("well").replace("toy.write", "bad.start"))
    outcome = toy.runner("run", "toy.toml")
    assert outcome.code == 7, outcome
    assert "stage 'write': RuntimeError: no heart" in outcome.stderr
    assert "| last words" in outcome.stderr
    assert 'raise RuntimeError("no heart")' in outcome.stderr


THREADED = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


def reported_pids(toy: Project) -> list[tuple[str, int]]:
    """Process ids that a stage wrote as its text."""
    texts = {path.name: path.read_text() for path in (toy.folder / "runs/toy/outputs").glob("*.txt")}
    return [(name, int(text)) for name, text in texts.items() if text.isdigit()]


PRELOADS = """
from runner.api import Stage, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    return [Stage(name="pre.load", outputs=(Text("t"),), start="pre:start", params="toy:Make", preload=("threaded",))]

def start(ctx):
    import os
    return lambda item: {"t": str(os.getppid())}
"""


@cold
def test_a_preload_that_starts_threads_is_not_forked_from(toy: Project) -> None:
    toy.plugin("pre", PRELOADS)
    toy.write("packages/threaded.py", THREADED)
    toy.write("toy.toml", BEHAVING.format("well").replace("toy.write", "pre.load"))
    process = toy.start("run", "toy.toml", "--json")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    # spawned workers are children of the supervisor itself
    assert [pid for _, pid in reported_pids(toy)] == [process.pid] * 2


LEAVES_A_CHILD = """
import os, pathlib, time
from runner.api import Stage, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    return [Stage(name="leaves.child", outputs=(Text("t"),), start="leaves:start", params="toy:Make")]

def start(ctx):
    def one(item):
        child = os.fork()
        if child == 0:
            time.sleep(300)
        return {"t": str(child)}
    return one
"""


@cold
def test_what_a_stage_started_and_left_behind_ends_with_its_worker(toy: Project) -> None:
    toy.plugin("leaves", LEAVES_A_CHILD)
    toy.write("toy.toml", BEHAVING.format("well").replace("toy.write", "leaves.child"))
    process = toy.start("run", "toy.toml")
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert len(reported_pids(toy)) == 2
    for _, pid in reported_pids(toy):
        wait_until(lambda pid=pid: not psutil.pid_exists(pid) or gone([psutil.Process(pid)]), 2, "it ended")


@cold
def test_ctrl_c_is_heard_while_libraries_are_imported(toy: Project) -> None:
    toy.plugin("pre", PRELOADS)
    flag = toy.folder / "flags" / "importing"
    slow = f"import pathlib, time\npathlib.Path({str(flag)!r}).touch()\ntime.sleep(300)\n"
    toy.write("packages/threaded.py", slow)
    toy.write("toy.toml", BEHAVING.format("well").replace("toy.write", "pre.load"))
    process = toy.start("run", "toy.toml")
    wait_until(flag.exists, 60, "the fork server imports")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
