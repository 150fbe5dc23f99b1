"""Locks between processes: who holds one, who waits, and what frees it."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from runner.errors import LockedError, StorageError
from runner.rundir.directory import RunDirectory
from runner.rundir.lock import Lock, held_by, holder_of
from runner.supervisor.device_locks import DeviceLocks

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys
from pathlib import Path
from runner.rundir.lock import Lock
with Lock(Path(sys.argv[1])) as lock:
    lock.acquire("it", lambda reported: print(reported, flush=True))
    print("held", flush=True)
    sys.stdin.read()
"""


class Holder(subprocess.Popen[str]):
    """One that is not waited for, whatever becomes of the test."""

    def __exit__(self, *_: object) -> None:
        self.kill()
        super().__exit__(None, None, None)


def holding(path: Path) -> Holder:
    return Holder(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_one_holds_and_others_are_reported_who(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holding(path) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with Lock(path) as lock, pytest.raises(LockedError, match=f"it is held .*: process {other.pid} on "):
            lock.acquire("it", None)
        with holding(path) as third:
            assert third.stdout is not None
            assert third.stdin is not None
            assert f"process {other.pid} on " in third.stdout.readline()
            assert not select.select([third.stdout], [], [], 0.2)[0]  # it waits, and holds nothing
            other.stdin.close()
            assert third.stdout.readline() == "held\n"
            reported = holder_of(path)
            assert reported is not None
            assert reported["pid"] == third.pid
            third.stdin.close()


def test_a_killed_holder_holds_no_longer_but_a_process_with_its_descriptor_does(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = holding(path)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    with Lock(path) as lock:
        lock.acquire("it", None)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor])
    with Lock(path) as again, pytest.raises(LockedError):
        again.acquire("it", None)
    child.communicate()
    with Lock(path) as again:
        again.acquire("it", None)


def test_what_is_given_up_is_free_though_it_is_open_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as lock:
        lock.acquire("it", None)
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor])
        lock.release()
        with Lock(path) as again:
            again.acquire("it", None)
        child.communicate()


def test_a_lock_for_all_users_is_one_that_all_can_open(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with Lock(tmp_path / "lock", 0o666):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_name_that_cannot_be_read_is_no_name(tmp_path: Path) -> None:
    for text in ("", "[]", "{", '{"pid": 1}'):
        (tmp_path / "lock").write_text(text)
        assert holder_of(tmp_path / "lock") is None
    assert holder_of(tmp_path / "other") is None


def test_runs_take_turns_on_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    reported: list[str] = []
    with ExitStack() as stack:
        first, second = DeviceLocks(["cuda:0", "cpu", "cuda:0"], stack), DeviceLocks(["cuda:0"], stack)
        assert (len(first.descriptors), len(second.descriptors)) == (1, 1)
        with first.held("cpu", reported.append), second.held("cpu", reported.append):
            assert reported == []
        with first.held("cuda:0", reported.append):
            (path,) = tmp_path.glob("runner-*.lock")
            with holding(path) as third:
                assert third.stdout is not None
                assert third.stdin is not None
                assert f"process {os.getpid()} on" in third.stdout.readline()
                third.kill()
        with second.held("cuda:0", reported.append):
            assert reported == []


def test_a_lock_is_the_file_at_its_path_and_no_other(tmp_path: Path) -> None:
    """What is made anew where a held one was removed or moved away, nobody holds."""
    path = tmp_path / "lock"
    with Lock(path) as lock:
        lock.acquire("it", None)
        assert lock.in_place
        path.rename(tmp_path / "moved")
        assert not lock.in_place
        path.write_text("another")
        assert not lock.in_place
        (tmp_path / "moved").rename(path)
        assert lock.in_place


def test_a_run_directory_that_was_replaced_is_not_written_to(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(StorageError, match="was removed or moved away"):
        directory.check_held()  # nobody has locked it
    with directory.locked():
        directory.check_held()
        (tmp_path / "run").rename(tmp_path / "moved")
        (tmp_path / "run").mkdir()
        (tmp_path / "run/.lock").touch()
        with pytest.raises(StorageError, match="was removed or moved away"):
            directory.check_held()


def test_who_holds_a_lock_can_be_asked_without_touching_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert held_by(path) is None
    assert not path.exists()
    path.write_text("no name")
    assert held_by(path) is None
    with holding(path) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdout.readline()
        reported = held_by(path)
        assert reported is not None
        assert reported["pid"] == other.pid
        path.write_text("no name")
        assert held_by(path) == {}
        # two who ask at once do not take each other for the holder
        other.kill()
        other.wait()
        first = os.open(path, os.O_RDONLY)
        fcntl.flock(first, fcntl.LOCK_SH)
        assert held_by(path) is None
        os.close(first)


def test_a_shorter_name_is_not_followed_by_the_end_of_a_longer_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("x" * 1000)
    with Lock(path) as lock:
        lock.acquire("it", None)
        reported = holder_of(path)
    assert reported is not None
    assert reported["pid"] == os.getpid()


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_what_is_no_file_is_no_lock(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").write_text("not ours")
    if kind == "link":
        (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "lock").mkdir()
    with pytest.raises(StorageError):
        Lock(tmp_path / "lock")
    assert held_by(tmp_path / "lock") is None
    assert (tmp_path / "elsewhere").read_text() == "not ours"
