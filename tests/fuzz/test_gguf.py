"""Headers of GGUF files: read as the library reads them, or refused; in a model, by the file's name."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import pytest
from fuzz.inputs import edited
from fuzz.trying import attempt, limited, try_inputs, watched
from hypothesis import strategies as st

from runner.api import Component
from runner.errors import ModelError
from runner.files.gguf import MAGIC, parse_gguf, read_gguf
from runner.files.header import Header, HeaderError
from runner.model.files import open_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Record = Callable[[str, Any], None]

LONG = 100_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file with metadata of several kinds, and tensors of several types."""
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    writer = gguf.GGUFWriter(str(path), "flux")
    writer.add_array("words", ["a", "bc"])
    writer.add_float32("one", 1.0)
    writer.add_array("many", [1, 2, 3])
    for kind in ("Q8_0", "Q4_0", "BF16"):
        quantisation = gguf.GGMLQuantizationType[kind]
        data = gguf.quants.quantize(np.ones((3, 64), np.float32), quantisation)
        writer.add_tensor(f"{kind}.weight", data, raw_dtype=quantisation)
    writer.add_tensor("plain", np.ones((2, 3, 1, 1, 5), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def parsed(data: bytes) -> Header | None:
    return attempt(lambda: parse_gguf(data, len(data)), HeaderError)[0]


def test_it_is_read_as_by_the_library(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.gguf"
    path.write_bytes(whole)
    theirs = {
        tensor.name: (
            tensor.tensor_type.name,
            tuple(reversed(tensor.shape.tolist())),
            int(tensor.data_offset),
            int(tensor.data_offset) + int(tensor.n_bytes),
        )
        for tensor in gguf.GGUFReader(str(path)).tensors
    }
    ours = read_gguf(path).tensors
    assert {n: (t.dtype.removeprefix("GGML "), t.shape, t.start, t.end) for n, t in ours.items()} == theirs


def test_every_cut_is_refused(whole: bytes) -> None:
    assert parsed(whole) is not None
    for length in range(len(whole) - 32):
        assert parsed(whole[:length]) is None
    assert parsed(whole + bytes(64)) is None


def test_broken_headers(whole: bytes, record_property: Record, tmp_path: Path) -> None:
    path = tmp_path / "some.gguf"

    def check(data: bytes) -> None:
        header = parsed(data)
        path.write_bytes(data)
        _, error = attempt(lambda: open_file(tmp_path, Component("part", "x:Y"), path.name), ModelError)
        assert (header is None) == (error is not None)
        assert error is None or path.name in str(error)
        for info in header.tensors.values() if header else ():
            assert 0 < info.start <= info.end <= len(data)

    record_property("inputs", try_inputs(check, st.one_of(edited(whole), st.binary(max_size=200))))


def header(*, tensors: int = 0, entries: int = 0, rest: bytes = b"") -> bytes:
    return MAGIC + struct.pack("<IQQ", 3, tensors, entries) + rest


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tensor(*shape: int, kind: int = 0, offset: int = 0, name: bytes = b"a", dimensions: int = -1) -> bytes:
    count = len(shape) if dimensions < 0 else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


HOSTILE = {
    "another format": b"GGML" + bytes(20),
    "another version": MAGIC + struct.pack("<IQQ", 1, 0, 0),
    "another byte order": MAGIC + struct.pack(">IQQ", 3, 0, 0),
    "more tensors than bytes": header(tensors=2**40),
    "more entries than bytes": header(entries=2**63),
    "a name longer than the file": header(entries=1, rest=struct.pack("<Q", 2**62)),
    "a name that is no text": header(entries=1, rest=text(b"\xff") + struct.pack("<IB", 0, 1)),
    "an unknown kind of value": header(entries=1, rest=text(b"a") + struct.pack("<IQ", 99, 1)),
    "an array longer than the file": header(entries=1, rest=text(b"a") + struct.pack("<IIQ", 9, 10, 2**60)),
    "arrays in arrays": header(entries=1, rest=text(b"a") + struct.pack("<IIQ", 9, 9, 1) * 50),
    "an alignment of none": header(entries=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 0)),
    "an alignment that is odd": header(
        entries=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 33)
    ),
    "many dimensions": header(tensors=1, rest=tensor(1, dimensions=2**31)),
    "a product that overflows": header(tensors=1, rest=tensor(2**40, 2**40)),
    "half a block": header(tensors=1, rest=tensor(33, kind=8)),
    "a number in blocks": header(tensors=1, rest=tensor(kind=8)),
    "a type that is not read": header(tensors=1, rest=tensor(256, kind=16)),
    "a type that nobody has": header(tensors=1, rest=tensor(256, kind=9999)),
    "a name twice": header(tensors=2, rest=tensor(8) + tensor(8, offset=32)),
    "tensors that overlap": header(tensors=2, rest=tensor(64) + tensor(8, offset=32, name=b"b")),
    "tensors with a gap": header(tensors=2, rest=tensor(8) + tensor(8, offset=320, name=b"b")),
    "data that is not aligned": header(tensors=1, rest=tensor(8, offset=4)),
    "data past the end": header(tensors=1, rest=tensor(2**34)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, case: str) -> None:
    file = tmp_path / "some.gguf"
    file.write_bytes(HOSTILE[case] + bytes(512))
    with limited(), pytest.raises(ModelError) as reported, watched():
        open_file(tmp_path, Component("part", "x:Y"), file.name)
    assert str(file) in str(reported.value)
    assert len(str(reported.value)) < 1000


def test_tensors_that_overlap_in_a_whole_file_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "some.gguf"
    head = header(tensors=2, rest=tensor(64) + tensor(64, offset=32, name=b"b"))
    file.write_bytes(head + bytes(-len(head) % 32 + 32 + 64 * 4))
    with pytest.raises(ModelError, match="tensors overlap"):
        open_file(tmp_path, Component("part", "x:Y"), file.name)


def test_a_large_file_is_refused_by_its_header(tmp_path: Path) -> None:
    file = tmp_path / "some.gguf"
    with file.open("wb") as sparse:
        sparse.write(header(entries=1, rest=struct.pack("<Q", LONG // 2)))
        sparse.truncate(LONG)
    with limited(), pytest.raises(ModelError, match=r"some[.]gguf is damaged"), watched():
        open_file(tmp_path, Component("part", "x:Y"), file.name)
