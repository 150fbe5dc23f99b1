"""Files are whole or not there, whatever was left behind before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.errors import StorageError
from runner.rundir import RunDirectory
from runner.storage import link, open_in_place, open_to_read, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep/file", b"one")
    write_atomically(tmp_path / "deep/file", b"two")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "deep").iterdir()] == [("file", b"two")]


def test_what_a_killed_process_of_our_number_left_is_in_nobodys_way(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(elsewhere)
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
