"""The control group of a worker with a RAM limit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runner.machine.cgroup import MemoryGroup
from runner.supervisor.processes.control_group import limited


def test_without_a_limit_there_is_no_group() -> None:
    with limited(1, None) as group:
        assert group is None


def test_a_worker_is_in_a_group_of_its_own_as_long_as_it_is_watched() -> None:
    possible = MemoryGroup.make(1 << 28)
    if possible is None:
        pytest.skip("no control group can be made here")
    possible.close()
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker,
        limited(worker.pid, 1 << 28) as group,
    ):
        inside = group is not None and (group.folder / "cgroup.procs").read_text().split()
        worker.kill()
        assert group is not None
        assert str(worker.pid) in (inside or ())
    assert not group.folder.exists()
