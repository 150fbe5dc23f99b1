"""Files are whole or not there, whatever was left behind before."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from runner.errors import StorageError
from runner.storage import link, write_atomically

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
