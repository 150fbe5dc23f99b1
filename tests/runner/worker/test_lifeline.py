"""A worker ends with its supervisor: told to stop it stops, and the end of the pipe ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
from waiting import wait_until

LISTENING = """
import sys, threading
from runner.worker import lifeline
stopped = threading.Event()
lifeline.watch(sys.stdin.buffer, stopped.set)
{}
stopped.wait()
print("stopped", flush=True)
threading.Event().wait()
"""


def listening(first: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", LISTENING.format(first)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_it_stops_when_told_and_ends_with_the_pipe() -> None:
    with listening() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"something else\nstop\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"stopped\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(30) == 1


def test_the_end_of_the_pipe_is_no_word_to_stop() -> None:
    with listening() as process:
        stdout, _ = process.communicate(timeout=30)
        assert (stdout, process.returncode) == (b"", 1)


BOUND = """
import os, threading
from runner.worker import lifeline
lifeline.bind_to_parent({parent})
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
            lambda: not bound.is_running() or bound.status() == psutil.STATUS_ZOMBIE, 30, "it has ended"
        )
