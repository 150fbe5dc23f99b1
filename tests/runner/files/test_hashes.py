"""Hashes that are kept between runs: never of a file that is another one by now."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from runner.files import hashes as hashing
from runner.files.cache import cache_folder
from runner.files.hashes import FileHashes, HashError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


def learned(cache: Path, path: Path) -> str | None:
    FileHashes(cache).learn([path])
    return FileHashes(cache).known(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_hash_is_kept(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache/hashes.json"
    assert FileHashes(cache).known(file) is None
    assert learned(cache, file) == sha256(b"one")
    (tmp_path / "link").symlink_to(file)
    assert FileHashes(cache).known(tmp_path / "link") == sha256(b"one")


@pytest.mark.parametrize("change", ["size", "time", "another file"])
def test_a_changed_file_is_not_known(tmp_path: Path, file: Path, change: str) -> None:
    cache = tmp_path / "cache/hashes.json"
    learned(cache, file)
    before = file.stat()
    if change == "size":
        file.write_bytes(b"four")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        file.write_bytes(b"two")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    else:
        (tmp_path / "new").write_bytes(b"two")
        os.utime(tmp_path / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "new").replace(file)
    assert FileHashes(cache).known(file) is None
    assert learned(cache, file) == sha256(file.read_bytes())


@pytest.mark.parametrize("part", ["st_size", "st_mtime_ns", "st_ctime_ns", "st_ino"])
def test_a_file_is_known_by_each_part_of_its_identity(tmp_path: Path, file: Path, part: str) -> None:
    # a change of the file alone would change its ctime in any case
    cache = tmp_path / "cache/hashes.json"
    learned(cache, file)
    entries = json.loads(cache.read_text())
    (entry,) = entries.values()
    entry[entry.index(getattr(file.stat(), part))] += 1
    cache.write_text(json.dumps(entries))
    assert FileHashes(cache).known(file) is None


def test_a_file_that_changes_while_it_is_hashed_is_refused_and_not_known(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache/hashes.json"
    hashed = hashing._sha256

    def meanwhile(path: Path) -> str:
        digest = hashed(path)
        path.write_bytes(path.read_bytes() + b"more")
        return digest

    monkeypatch.setattr(hashing, "_sha256", meanwhile)
    with pytest.raises(HashError, match="weights was written to while it was read; run again"):
        learned(cache, file)
    assert FileHashes(cache).known(file) is None


def test_hashes_are_added_to_those_that_others_wrote(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache/hashes.json"
    early = FileHashes(cache)
    (tmp_path / "other").write_bytes(b"two")
    learned(cache, tmp_path / "other")
    assert early.digest(file) == sha256(b"one")
    assert FileHashes(cache).known(file) is None
    early.save()
    assert FileHashes(cache).known(file) == sha256(b"one")
    assert FileHashes(cache).known(tmp_path / "other") == sha256(b"two")
    file.write_bytes(b"new")
    assert early.digest(file) == sha256(b"new")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_cache_is_none(tmp_path: Path, file: Path, text: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_text(text)
    assert FileHashes(cache).known(file) is None
    cache.write_text(json.dumps({str(file.resolve()): "no list"}))
    assert FileHashes(cache).known(file) is None
    assert learned(cache, file) == sha256(b"one")


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, file: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    hashes = FileHashes(tmp_path / "cache/hashes.json")
    hashes.learn([file])
    assert hashes.known(file) == sha256(b"one")


def test_a_blob_of_the_hub_is_named_by_its_hash(tmp_path: Path) -> None:
    name = sha256(b"whatever")
    for folder, reported in (("blobs", name), ("others", None)):
        blob = tmp_path / folder / name
        blob.parent.mkdir()
        blob.write_bytes(b"x")
        assert FileHashes(tmp_path / "hashes.json").known(blob) == reported
    short = tmp_path / "blobs" / name[:40]  # of git, which is no SHA-256 of the content
    short.write_bytes(b"x")
    assert FileHashes(tmp_path / "hashes.json").known(short) is None


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HashError, match=r"pipe cannot be read"):
        hashing._sha256(tmp_path / "pipe")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RUNNER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/runner"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/runner"
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
