"""Listening to a worker: its events to the last, its memory, and its exit whatever it left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from waiting import wait_until
from worker_job import item_of, job_of

from runner.api import Component
from runner.errors import PluginError
from runner.events import Checked, Event, ItemStarted
from runner.supervisor.processes import connection as connection_module
from runner.supervisor.processes.connection import WorkerConnection
from runner.supervisor.processes.spawn import _Spawned

if TYPE_CHECKING:
    from runner.protocol import Job

READ = """
import os, sys, time
from runner.protocol import messages, receive
job = receive(sys.stdin.buffer)
reported = messages(sys.stdin.buffer)
"""


def talk(script: str, job: Job | None = None, first: str = READ) -> WorkerConnection:
    popen = subprocess.Popen(
        [sys.executable, "-c", first + script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    return WorkerConnection(_Spawned(popen), job or job_of([]))


def heard(connection: WorkerConnection) -> list[Event]:
    return [event for event in connection.events() if event is not None]


def test_every_event_to_the_last() -> None:
    said = '{"event": "item_started", "item": "%d"}'
    connection = talk(f"for n in range(500): print({said!r} % n)\nsys.stdout.flush()\nos._exit(4)")
    assert heard(connection) == [ItemStarted(item=str(n)) for n in range(500)]
    assert connection.exit_code == 4


def test_half_a_line_is_no_event() -> None:
    line = '{"event": "item_started", "item": "a"}'
    connection = talk(f"print({line!r}); sys.stdout.write({line!r}); sys.stdout.flush()")
    assert heard(connection) == [ItemStarted(item="a")]


def test_what_this_version_does_not_know_is_passed_over() -> None:
    said = (
        '{"event": "of a later version"}',
        '{"event": "item_started"}',
        '{"event": "item_started", "item": "a"}',
    )
    assert heard(talk(f"print(*{said!r}, sep='\\n', flush=True)")) == [ItemStarted(item="a")]


def test_there_is_time_to_look_around_while_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "SAMPLE_SECONDS", 0.001)
    connection = talk('print(\'{"event": "alive"}\', flush=True)\nnext(reported)')
    looks: list[None] = []
    begun = False
    for event in connection.events():
        begun = begun or event is not None
        if begun and event is None:
            looks.append(None)
            if len(looks) == 5:
                connection.ask_to_stop()
    assert len(looks) >= 5
    assert connection.exit_code == 0


def test_a_worker_that_has_just_ended_is_not_seen_to_hold_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    memory = connection_module.Memory(now=5, peak=7)
    memory.sample(ended.pid)
    assert (memory.now, memory.peak) == (5, 7)


def test_the_peak_of_memory_is_kept() -> None:
    held = 64 << 20
    connection = talk(f"kept = b'x' * {held}\nnext(reported)\ndel kept\nnext(reported)")
    asked = 0
    for _ in connection.events():
        if asked == 0 and connection.memory.now > held:
            connection.ask_to_stop()
            asked = 1
        elif asked == 1 and connection.memory.now < held:
            connection.ask_to_stop()
            asked = 2
    assert held < connection.memory.peak
    assert connection.memory.now < held


def test_a_child_that_keeps_the_pipe_open_keeps_nobody_waiting_and_is_ended() -> None:
    script = """
child = os.fork()
if child == 0:
    time.sleep(300)
print('{"event": "checked", "problem": "%d"}' % child, flush=True)
os._exit(0)
"""
    connection = talk(script)
    (event,) = heard(connection)
    assert connection.exit_code == 0
    assert isinstance(event, Checked)
    child = int(event.problem or "")
    wait_until(
        lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE,
        30,
        "it was ended too",
    )


def test_a_worker_that_does_not_exit_after_its_last_word_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "GRACE_SECONDS", 0.2)
    connection = talk("os.close(1)\ntime.sleep(300)")
    assert heard(connection) == []
    assert connection.exit_code == -9


@pytest.fixture
def large() -> Job:
    """A job that no pipe holds at once."""
    return job_of([item_of(Path("x" * 1000), f"i{n}") for n in range(1200)])


def test_a_job_larger_than_a_pipe_is_no_reason_to_wait(large: Job) -> None:
    """A worker that is still importing does not read yet."""
    said = '{"event": "checked", "problem": "%d items"}'
    connection = talk(f"print({said!r} % len(job.items), flush=True)", large)
    assert heard(connection) == [Checked(problem="1200 items")]


def test_a_worker_that_dies_before_it_reads_its_job_tells_by_its_exit(large: Job) -> None:
    connection = talk("", large, first="import os; os._exit(5)")
    assert heard(connection) == []
    assert connection.exit_code == 5
    connection.ask_to_stop()  # it is gone, and that is no error


def test_a_stage_that_cannot_be_sent_is_its_plugins_fault() -> None:
    import types
    from dataclasses import replace

    from worker_job import STAGE

    component = Component("net", "torch:Net", float32=types.MappingProxyType({}))
    stage = replace(STAGE, components=(component,))
    with pytest.raises(PluginError, match="cannot be pickled"):
        heard(talk("", job_of([], stage=stage)))


def test_no_descriptor_is_left_open() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0  # noqa: PTH110, PTH208

    before = descriptors()
    connections = [talk("") for _ in range(3)]
    for connection in connections:
        heard(connection)
    assert descriptors() == before
