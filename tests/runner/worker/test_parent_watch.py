"""A worker stops when asked, takes more items, and ends with its supervisor at the end of the pipe."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from waiting import wait_until

from runner.protocol import MoreItems, Stop, send

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTENING = """
import sys, threading
from runner.worker import parent_watch
more = lambda more: print(len(more.items), more.last, flush=True)
parent_watch.watch(sys.stdin.buffer, lambda: print("stopped", flush=True), more)
threading.Event().wait()
"""


@pytest.fixture
def listening() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", LISTENING]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_it_stops_when_reported_and_ends_with_the_pipe(listening: subprocess.Popen[bytes]) -> None:
    assert listening.stdin is not None
    assert listening.stdout is not None
    send(MoreItems((), last=True), listening.stdin)
    send(Stop(), listening.stdin)
    assert listening.stdout.readline() == b"0 True\n"
    assert listening.stdout.readline() == b"stopped\n"
    assert listening.poll() is None
    listening.stdin.close()
    assert listening.wait(20) == 1
    assert listening.stdout.read() == b""


def test_a_message_that_is_cut_off_is_the_end_of_the_pipe(listening: subprocess.Popen[bytes]) -> None:
    stdout, _ = listening.communicate(pickle.dumps(Stop())[:-1], timeout=20)
    assert (stdout, listening.returncode) == (b"", 1)


def test_the_end_of_the_pipe_is_no_word_to_stop(listening: subprocess.Popen[bytes]) -> None:
    stdout, _ = listening.communicate(timeout=20)
    assert (stdout, listening.returncode) == (b"", 1)


BOUND = """
import os, threading
from runner.worker import parent_watch
parent_watch.bind_to_parent({parent})
print("bound", flush=True)
threading.Event().wait()
"""


def test_whose_parent_has_gone_before_the_binding_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUND.format(parent=os.getpid() + 1)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can bind a process to its parent")
def test_the_kernel_ends_it_with_its_parent() -> None:
    child = BOUND.format(parent="os.getppid()")
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        bound = psutil.Process(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(
            lambda: not bound.is_running() or bound.status() == psutil.STATUS_ZOMBIE, 20, "it has ended"
        )
