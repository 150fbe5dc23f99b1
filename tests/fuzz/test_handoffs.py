"""Hand-offs: whole ones are read, and any that are not are refused, whoever sealed them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fuzz.inputs import edited, spoiled, values, words
from fuzz.trying import attempt, limited, try_inputs, watched
from hypothesis import strategies as st
from safetensors.torch import load, save

from runner.files.handoff import DamagedError, Handoff, read, record_of_file, seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Record = Callable[[str, Any], None]

KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4
TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.bfloat16)}
BESIDE = b"a page"
TOLD: dict[str, Any] = {
    "key": KEY,
    "item": "fox",
    "stage": "make",
    "lineage": {"make": {"params": {"prompt": "a fox"}, "version": 1}},
    "text": {"caption": "A FOX"},
    "files": {"page": record_of_file(f"{KEY}.page.txt", BESIDE)},
    "versions": {"torch": "2"},
}


def sealed(reported: dict[str, Any], tensors: dict[str, torch.Tensor] = TENSORS) -> bytes:
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in reported.items()
    }
    return seal(save(tensors), metadata)


def looked_at(path: Path, data: bytes) -> Handoff | None:
    path.write_bytes(data)
    return attempt(lambda: read(path, KEY), DamagedError)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / f"{KEY}.page.txt").write_bytes(BESIDE)
    return tmp_path / f"{KEY}.safetensors"


def test_altered_bytes(path: Path, record_property: Record) -> None:
    """Flips, cuts, insertions, the header of another: what is read is what was written."""
    whole = sealed(TOLD)
    other = sealed({**TOLD, "key": OTHER}, {"c": torch.zeros(7)})
    start, others = (8 + int.from_bytes(data[:8], "little") for data in (whole, other))
    swapped = [other[:others] + whole[start:], whole[:start] + other[others:], other, whole + whole, b""]

    def check(data: bytes) -> None:
        found = looked_at(path, data)
        if found is not None:
            tensors = load(found.data)
            assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
            assert (found.text, found.files, found.lineage) == (TOLD["text"], TOLD["files"], TOLD["lineage"])

    record_property("inputs", try_inputs(check, st.one_of(edited(whole), st.sampled_from(swapped))))


def test_metadata_of_a_stranger(path: Path, record_property: Record) -> None:
    """Anybody can make a digest: what metadata say is of its type, and names nothing outside the folder."""
    outside = path.parent.parent / "page.txt"
    outside.write_bytes(BESIDE)
    names = st.one_of(
        words,
        st.sampled_from(
            ["../page.txt", "..", ".", "", str(outside), "\0", f"{KEY}./../../page.txt", f"{KEY}.page.txt"]
        ),
    )
    files = st.dictionaries(words, names.map(lambda name: record_of_file(name, BESIDE)), max_size=3)
    tables = spoiled(st.builds(lambda more: {**json.loads(json.dumps(TOLD)), "files": more}, files))
    accepted = 0

    def check(reported: dict[str, Any]) -> None:
        nonlocal accepted
        try:
            data = sealed({str(name): value for name, value in reported.items()})
        except (ValueError, AttributeError):  # what no header holds
            return
        found = looked_at(path, data)
        if found is not None:
            accepted += 1
            assert all(isinstance(text, str) for text in found.text.values())
            assert all(isinstance(stage["params"], dict) for stage in found.lineage.values())
            assert all(file["name"] == f"{KEY}.page.txt" for file in found.files.values())

    tried = try_inputs(check, tables)
    record_property("inputs", tried)
    assert 0 < accepted < tried


def test_nothing_like_a_handoff(path: Path, record_property: Record) -> None:
    def check(data: bytes) -> None:
        assert looked_at(path, data) is None

    headers = values.map(lambda one: json.dumps(one).encode())
    framed = headers.map(lambda header: len(header).to_bytes(8, "little") + header)
    record_property("inputs", try_inputs(check, st.one_of(framed, st.binary(max_size=100))))


def test_a_file_larger_than_memory_is_refused_by_its_header(path: Path) -> None:
    with path.open("wb") as sparse:
        sparse.write(sealed(TOLD))
        sparse.truncate(1 << 42)
    with limited(), watched(), pytest.raises(DamagedError, match="longer than its header says"):
        read(path, KEY)
