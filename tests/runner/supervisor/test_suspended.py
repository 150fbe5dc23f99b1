"""Suspended processes: nobody is taken for hung or slow, and no time is counted, once they are continued."""

from __future__ import annotations

import functools
import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING

import psutil
import pytest
from toy_plugin import BEHAVING
from waiting import wait_until

if TYPE_CHECKING:
    import subprocess

    from project import Project

pytestmark = pytest.mark.cold  # they look at the processes of a run

LIMIT = 4  # seconds, of an item
SUSPENDED = LIMIT + 3  # seconds: an item that runs for so long over its time is ended from outside
SUPERVISOR, SERVER, WORKER = range(3)


def is_suspended(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def start(toy: Project, name: str, behave: str) -> subprocess.Popen[str]:
    toy.write(f"{name}.toml", BEHAVING.format(behave).replace('"toy"', f'"{name}"'))
    (toy.folder / f"flags-{name}").mkdir()
    toy.environment["TOY_FLAGS"] = str(toy.folder / f"flags-{name}")
    options = "--json", "--set", f"stage.make.timeout={LIMIT}"
    # a process group of its own in the session, as a shell makes it
    return toy.start("run", f"{name}.toml", *options, process_group=0)


def processes(toy: Project, name: str, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Supervisor, fork server and worker of a run, once it has come to its item."""
    wait_until((toy.folder / f"flags-{name}/item").exists, 100, "the item has begun")
    supervisor = psutil.Process(process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def test_suspended_time_is_no_computing_time(toy: Project) -> None:
    chosen = {"worker": (WORKER,), "reader": (SUPERVISOR,), "all": (SUPERVISOR, SERVER, WORKER)}
    # what a worker tells a supervisor that does not read waits in the pipe, and then so does the worker
    runs = {name: start(toy, name, "flood" if name == "reader" else "wait") for name in chosen}

    def suspend(name: str) -> list[psutil.Process]:
        suspended = [processes(toy, name, runs[name])[n] for n in chosen[name]]
        for one in suspended:
            one.suspend()
        return suspended

    with ThreadPoolExecutor() as pool:
        suspended = list(chain.from_iterable(pool.map(suspend, chosen)))
    time.sleep(SUSPENDED)  # what is not to count
    for name in chosen:
        (toy.folder / f"flags-{name}/item.go").touch()
    for one in suspended:
        one.resume()

    for name, process in runs.items():
        stdout, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, (name, stdout[-2000:], stderr)
        events = [json.loads(line) for line in stdout.splitlines()]
        items = [e for e in events if e["event"] == "item_finished" and e["stage"] == "make"]
        assert max(e["seconds"] for e in items) < LIMIT, name
        took = [e["seconds"] for e in events if e["event"] in ("stage_finished", "run_finished")]
        first, last = (datetime.fromisoformat(events[n]["time"]) for n in (0, -1))
        assert max(took) < (last - first).total_seconds() - 0.8 * SUSPENDED, name
        waiting = [e["reason"] for e in events if e["event"] == "waiting"]
        assert any("kill -CONT" in reason for reason in waiting) == (name == "worker")


def test_ctrl_z_suspends_the_worker_too(toy: Project) -> None:
    process = start(toy, "toy", "wait")
    supervisor, _, worker = processes(toy, "toy", process)

    process.send_signal(signal.SIGTSTP)
    for one in (supervisor, worker):
        wait_until(functools.partial(is_suspended, one), 20, "it is suspended")
    (toy.folder / "flags-toy/item.go").touch()
    process.send_signal(signal.SIGCONT)

    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
