"""What is known of files that were hashed before, and when it no longer holds."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from waiting import wait_until

from runner.api import Component
from runner.model.files import open_component
from runner.model.fingerprint import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

VAE = Component("vae", "diffusers:AutoencoderKL")
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the demo model, all of whose times of modification are long ago."""
    monkeypatch.setenv("RUNNER_CACHE", str(project.folder / "cache"))
    folder = shutil.copytree(DEMO, project.folder / "model")
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    return folder


def now(model: Path, *, hash_missing: bool = True) -> str | None:
    return fingerprint([open_component(model, VAE)], hash_missing=hash_missing)


def other_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


def copied_over(path: Path) -> None:
    """As ``cp -p`` does: into the file that is there, and its time of modification set back."""
    path.write_bytes(other_bytes(path))
    os.utime(path, (1, 1))


def written_into(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(other_bytes(path)[-1:])
    os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    """As ``rsync -t`` does; the new file may have the old one's inode, where that was freed before."""
    data = other_bytes(path)
    path.unlink()
    path.write_bytes(data)
    os.utime(path, (1, 1))


def config_edited(path: Path) -> None:
    config = path.with_name("config.json")
    config.write_text(config.read_text().replace('"norm_num_groups": ', '"norm_num_groups":\t'))
    os.utime(config, (1, 1))


@pytest.mark.parametrize("change", [copied_over, written_into, replaced, config_edited])
def test_a_change_that_leaves_size_and_modification_time_is_seen(
    model: Path, change: Callable[[Path], None]
) -> None:
    before = now(model)
    change(model / WEIGHTS)
    assert (model / WEIGHTS).stat().st_mtime == 1
    assert now(model, hash_missing=False) is None, "a plan says pending"
    after = now(model)
    assert after != before
    assert now(model, hash_missing=False) == after
    assert now(shutil.copytree(model, model.with_name("copy"))) == after


def test_a_file_changed_as_soon_as_it_was_hashed_is_seen(model: Path) -> None:
    """Within the tick in which the system gives all changes the same time."""
    path = model / WEIGHTS
    for _ in range(5):
        copied_over(path)
        before = now(model)
        copied_over(path)
        assert now(model) != before


def test_a_file_changed_while_it_is_hashed_is_hashed_again(model: Path) -> None:
    path = model / "vae/large.bin"
    with path.open("wb") as file:
        file.truncate(2 << 30)
    component = Component("vae", "diffusers:AutoencoderKL", files=("large.bin",))
    hashed: list[str | None] = []
    hashing = threading.Thread(target=lambda: hashed.append(fingerprint([open_component(model, component)])))
    hashing.start()
    wait_until(lambda: read_past(path, 1 << 20), 30, "its first bytes were read")
    with path.open("r+b") as file:
        file.write(b"x")
    assert hashing.is_alive(), "or it was all read already"
    hashing.join()
    assert fingerprint([open_component(model, component)], hash_missing=False) == hashed[0]
    shutil.rmtree(model.with_name("cache"))
    assert fingerprint([open_component(model, component)]) == hashed[0]


def read_past(path: Path, position: int) -> bool:
    """Whether this process has the file open and has read so much of it."""
    for number in Path("/proc/self/fd").iterdir():
        try:
            if number.readlink() == path:
                reported = Path("/proc/self/fdinfo", number.name).read_text()
                return int(reported.split()[1]) > position
        except OSError:  # closed meanwhile
            continue
    return False


def test_a_file_of_a_time_to_come_is_hashed_each_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was set back: the next change could get any time."""
    monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
    first = now(model)
    assert now(model, hash_missing=False) is None
    assert now(model) == first


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
    lines = sorted(
        f"{tokenizer.name}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for tokenizer in tokenizers
        for path in (DEMO / tokenizer.name).iterdir()
    )
    in_order = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert fingerprint(files) == fingerprint(files[::-1]) == in_order
    assert fingerprint(files) != fingerprint(files[:1])
    assert fingerprint([]) == hashlib.sha256().hexdigest()
