"""Files are whole or not there, whatever was left behind before."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from runner.errors import StorageError
from runner.files.storage import (
    link,
    open_in_place,
    open_to_read,
    read_ends,
    read_regular,
    storage_errors,
    temporary_of,
    write_atomically,
)
from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/file", b"one")
    write_atomically(tmp_path / "deep/file", b"two")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "deep").iterdir()] == [("file", b"two")]


def test_what_a_killed_process_of_our_number_left_is_in_nobodys_way(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    temporary_of(tmp_path / "file").symlink_to(elsewhere)
    write_atomically(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_bytes() == b"ours"
    assert elsewhere.read_bytes() == b"not ours"


def test_what_cannot_be_written_is_a_storage_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "file/inside").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_atomically(tmp_path / "file", b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_link_has_the_same_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"old")
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a"


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / "file").symlink_to(elsewhere)
    (tmp_path / "second").symlink_to(elsewhere)
    write_atomically(tmp_path / "file", b"ours")
    link(tmp_path / "file", tmp_path / "second")
    assert elsewhere.read_bytes() == b"not ours"
    for name in ("file", "second"):
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"ours"


def test_a_log_is_written_through_no_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / "log").symlink_to(elsewhere)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("log", "dangling"):
        with pytest.raises(StorageError, match=f"{name}: it is a symbolic link to another file; remove"):
            open_in_place(tmp_path / name, os.O_WRONLY | os.O_APPEND)
    assert elsewhere.read_bytes() == b"not ours"
    assert not (tmp_path / "nowhere").exists()


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        open_to_read(tmp_path / "pipe")
    with pytest.raises(StorageError, match=r"cannot write .*pipe"):
        open_in_place(tmp_path / "pipe", os.O_WRONLY | os.O_APPEND)


@pytest.mark.parametrize("inner", ["outputs", "handoff", "handoff/make"])
def test_a_run_directory_is_one_folder(tmp_path: Path, inner: str) -> None:
    """It may be a link itself; a link in it would have runs write, and clean up, elsewhere."""
    (tmp_path / "disk/run").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk/run")
    directory = RunDirectory(tmp_path / "run")
    with directory.locked():
        pass
    (tmp_path / "elsewhere").mkdir()
    (directory.path / inner).parent.mkdir(exist_ok=True)
    (directory.path / inner).symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(StorageError, match=f"{inner}: it is a symbolic link to another folder"),
        directory.locked(),
    ):
        raise AssertionError


def test_what_cannot_be_linked_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems refuse hard links."""

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refused)
        link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"a"
    assert (tmp_path / "a").stat().st_ino != (tmp_path / "b").stat().st_ino
    link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").stat().st_ino == (tmp_path / "b").stat().st_ino


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a renamed file may be empty, if its content was not written before."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synced: list[bytes] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        (temporary,) = tmp_path.glob(".file.*")
        sync(descriptor)
        synced.append(temporary.read_bytes() if path.read_bytes() == b"old" else b"too late")

    monkeypatch.setattr(os, "fsync", look)
    write_atomically(path, b"new")
    assert synced == [b"new"]
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_interrupted_a_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def failing(_descriptor: int) -> None:
        raise error

    (tmp_path / "file").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises((StorageError, KeyboardInterrupt)):
        write_atomically(tmp_path / "file", b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


def test_both_ends_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_ends(path, 4, 3) == (b"0123", 10, b"789")
    assert read_ends(path, 100, 3) == (b"0123456789", 10, b"789")
    assert read_ends(path, None, 0) == (b"0123456789", 10, b"")
    assert read_ends(path, 4, 100) == (b"0123", 10, b"0123456789")
    assert read_regular(path) == b"0123456789"


def test_an_error_names_the_file_and_the_reason(tmp_path: Path) -> None:
    for error, words in (
        (OSError(errno.ENOSPC, "No space left", "inner"), "cannot write inner: No space left"),
        (OSError(errno.EXDEV, "Cross-device", "from", None, "to"), "cannot write to: Cross-device"),
        (OSError(errno.EIO, "Input/output error"), f"cannot write {tmp_path}: Input/output error"),
        (TimeoutError(), f"cannot write {tmp_path}: TimeoutError"),
    ):
        with pytest.raises(StorageError) as failed, storage_errors(tmp_path):
            raise error
        assert str(failed.value) == words


def test_no_descriptor_is_left_of_what_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    first = os.open(tmp_path, os.O_RDONLY)
    os.close(first)
    for _ in range(3):
        with pytest.raises(OSError, match="no regular file"):
            open_to_read(tmp_path / "pipe")
        with pytest.raises(OSError, match="no regular file"):
            read_regular(tmp_path / "pipe")
    again = os.open(tmp_path, os.O_RDONLY)
    os.close(again)
    assert again == first
