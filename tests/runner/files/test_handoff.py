"""Hand-offs: sealed, the same bytes for the same content, and every damage found."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load, save

from runner.files.handoff import DamagedError, read, record_of_file, seal

if TYPE_CHECKING:
    from pathlib import Path

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}
METADATA = {"key": "k" * 64, "item": "fox", "text": "{}", "versions": '{"torch": "2"}'}


def test_what_was_sealed_is_read(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(seal(save(TENSORS), METADATA))
    found = read(path, "k" * 64)
    tensors = load(found.data)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    assert METADATA.items() <= dict(found.header.metadata).items()
    assert int.from_bytes(found.data[:8], "little") % 64 == 56  # the data begins at 64 bytes


def test_equal_content_is_equal_bytes() -> None:
    turned = dict(reversed(list(METADATA.items())))
    assert seal(save(TENSORS), METADATA) == seal(save(dict(reversed(list(TENSORS.items())))), turned)


def test_a_handoff_of_no_tensors_is_one_too(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(seal(save({}), {**METADATA, "text": '{"caption": "x"}'}))
    assert read(path).text == {"caption": "x"}


def test_every_flipped_bit_that_tells_and_every_cut_is_found(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    whole = seal(save(TENSORS), METADATA)
    end_of_header = 8 + int.from_bytes(whole[:8], "little")
    padding = whole[:end_of_header].rstrip(b" ")
    for n in range(len(whole)):
        if len(padding) <= n < end_of_header:
            continue  # spaces behind the header say nothing
        damaged = bytearray(whole)
        damaged[n] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DamagedError):
            read(path)
    for n in range(len(whole)):
        path.write_bytes(whole[:n])
        with pytest.raises(DamagedError):
            read(path)


def test_the_handoff_of_another_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.safetensors"
    path.write_bytes(seal(save(TENSORS), METADATA))
    with pytest.raises(DamagedError, match="another key"):
        read(path, "0" * 64)


def sealed(tmp_path: Path, **metadata: Any) -> Path:
    path = tmp_path / f"{'k' * 64}.safetensors"
    reported = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()
    }
    path.write_bytes(seal(save(TENSORS), {**METADATA, **reported}))
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {"text": {"caption": 1}},
        {"text": "no JSON"},
        {"text": [1]},
        {"files": {"sound": {"name": "x"}}},
        {"files": {"sound": {"name": "x", "sha256": "y", "more": "z"}}},
        {"lineage": {"make": {"params": [1]}}},
        {"lineage": {"make": {}}},
        {"lineage": "[" * 100_000},
    ],
)
def test_metadata_are_what_a_stage_leaves(tmp_path: Path, metadata: dict[str, Any]) -> None:
    """A digest says that nothing was altered, not who wrote it."""
    with pytest.raises(DamagedError, match="metadata are malformed"):
        read(sealed(tmp_path, **metadata))


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("k" * 64 + ".sound.wav", b"sound", True),
        ("k" * 64 + ".sound.wav", b"other", False),
        ("k" * 64 + ".sound.wav", None, False),
        ("other.sound.wav", b"sound", False),
        ("k" * 64 + ".x/../" + "k" * 64 + ".sound.wav", b"sound", False),
        (3, b"sound", False),
    ],
)
def test_files_beside_it_are_its_own_and_those_that_were_written(
    tmp_path: Path, name: Any, content: bytes | None, right: bool
) -> None:
    if content is not None:
        for there in ("k" * 64 + ".sound.wav", "other.sound.wav"):
            (tmp_path / there).write_bytes(content)
    (tmp_path / ("k" * 64 + ".x")).mkdir()
    record = {**record_of_file("", b"sound"), "name": name}
    path = sealed(tmp_path, files={"sound": record})
    if right:
        assert read(path).files == {"sound": record}
    else:
        with pytest.raises(DamagedError, match="its file 'sound' is not the one that was written"):
            read(path)
