"""Hashes that are kept between runs: never of a file that is another one by now."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO

from runner.api import Component
from runner.errors import ModelError
from runner.files.cache import cache_folder
from runner.model import fingerprint as hashing
from runner.model.files import open_component
from runner.model.fingerprint import _Hashes, fingerprint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    return path


def learned(cache: Path, path: Path) -> str | None:
    _Hashes(cache).learn([path])
    return _Hashes(cache).known(path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_hash_is_kept(tmp_path: Path, file: Path) -> None:
    cache = tmp_path / "cache/hashes.json"
    assert _Hashes(cache).known(file) is None
    assert learned(cache, file) == sha256(b"one")
    (tmp_path / "link").symlink_to(file)
    assert _Hashes(cache).known(tmp_path / "link") == sha256(b"one")


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
    assert _Hashes(cache).known(file) is None
    assert learned(cache, file) == sha256(file.read_bytes())


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
    with pytest.raises(ModelError, match="weights was written to while it was read; run again"):
        learned(cache, file)
    assert _Hashes(cache).known(file) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_cache_is_none(tmp_path: Path, file: Path, text: str) -> None:
    cache = tmp_path / "hashes.json"
    cache.write_text(text)
    assert _Hashes(cache).known(file) is None
    cache.write_text(json.dumps({str(file.resolve()): "no list"}))
    assert _Hashes(cache).known(file) is None
    assert learned(cache, file) == sha256(b"one")


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, file: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    hashes = _Hashes(tmp_path / "cache/hashes.json")
    hashes.learn([file])
    assert hashes.known(file) == sha256(b"one")


def test_a_blob_of_the_hub_is_named_by_its_hash(tmp_path: Path) -> None:
    name = sha256(b"whatever")
    for folder, told in (("blobs", name), ("others", None)):
        blob = tmp_path / folder / name
        blob.parent.mkdir()
        blob.write_bytes(b"x")
        assert _Hashes(tmp_path / "hashes.json").known(blob) == told
    short = tmp_path / "blobs" / name[:40]  # of git, which is no SHA-256 of the content
    short.write_bytes(b"x")
    assert _Hashes(tmp_path / "hashes.json").known(short) is None


def test_a_file_that_cannot_be_read_is_the_models_fault(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match=r"pipe cannot be read"):
        hashing._sha256(tmp_path / "pipe")


def test_names_are_part_of_what_a_model_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    found = []
    for name in ("vocab.json", "other.json"):
        folder = tmp_path / name.partition(".")[0] / "tokenizer"
        folder.mkdir(parents=True)
        (folder / name).write_text("{}")
        found.append(fingerprint([open_component(folder.parent, Component("tokenizer", "x:Y"))]))
    assert found[0] != found[1]
    tokenizers = [Component("tokenizer", "x:Y"), Component("tokenizer_2", "x:Y")]
    files = [open_component(DEMO, tokenizer) for tokenizer in tokenizers]
    assert fingerprint(files) == fingerprint(files[::-1])
    assert fingerprint(files) != fingerprint(files[:1])
    assert fingerprint([]) == sha256(b"")


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RUNNER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/runner"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/runner"
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
