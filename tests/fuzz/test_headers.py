"""Headers of safetensors files: read as the library reads them, or refused; in a model, by the file's name."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import safetensors
from checkpoints import DEMO
from fuzz.inputs import edited, spoiled, values
from fuzz.trying import attempt, limited, try_inputs, watched
from hypothesis import strategies as st

from runner.api import Component
from runner.errors import ModelError
from runner.files.header import Header, HeaderError, parse_header
from runner.model.files import open_component

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Record = Callable[[str, Any], None]

TABLES: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "U8", "shape": [], "data_offsets": [24, 25]},
    "c": {"dtype": "BF16", "shape": [0, 2**40], "data_offsets": [25, 25]},
}
WHOLE = json.dumps(TABLES).encode()
SMALL = 1 << 20  # bytes of data that are made up to hold a header against the library


def parsed(raw: bytes) -> Header | None:
    return attempt(lambda: parse_header(raw), HeaderError)[0]


def check(raw: bytes) -> None:
    header = parsed(raw)
    if header is not None and header.size < SMALL + len(raw):
        data = len(raw).to_bytes(8, "little") + raw + bytes(header.size - 8 - len(raw))
        theirs = {name: (t["dtype"], tuple(t["shape"])) for name, t in safetensors.deserialize(data)}
        assert theirs == {name: (t.dtype, t.shape) for name, t in header.tensors.items()}


def test_broken_headers(record_property: Record) -> None:
    tables = spoiled(st.just(TABLES).map(lambda whole: json.loads(json.dumps(whole))))
    texts = tables.map(lambda one: json.dumps(one).encode())
    anything = st.one_of(st.binary(max_size=200), values.map(lambda one: json.dumps(one).encode()))
    record_property("inputs", try_inputs(check, st.one_of(edited(WHOLE), texts, anything)))


def entry(name: str, **fields: Any) -> bytes:
    whole = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    return json.dumps({name: {**whole, **fields}}).encode()


LONG = 4_000_000
HOSTILE = {
    "a name twice": b'{"a": %s, "a": %s}' % ((json.dumps(TABLES["b"]).encode(),) * 2),
    "metadata twice": b'{"__metadata__": {}, "__metadata__": {}}',
    "an entry's field twice": b'{"a": {"dtype": "U8", "dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
    "NaN": entry("a", shape=[float("nan")]),
    "NaN where nobody looks": entry("a", more=float("nan")),
    "a float": entry("a", shape=[1.0]),
    "a boolean": entry("a", shape=[True]),
    "a shape that is a table": entry("a", shape={}),
    "a shape that is a string": entry("a", shape=""),
    "a negative number": entry("a", shape=[-1], data_offsets=[1, 0]),
    "a product that overflows": entry("a", shape=[2**62, 4]),
    "a product that overflows, times nothing": entry("a", shape=[2**62, 4, 0], data_offsets=[0, 0]),
    "an offset that overflows": entry("a", shape=[2**64], data_offsets=[0, 2**64]),
    "overlapping offsets": json.dumps({"a": TABLES["a"], "b": {**TABLES["b"], "data_offsets": [0, 1]}}).encode(),
    "half a character": b'{"\\ud800": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
    "half a character in metadata": b'{"__metadata__": {"a": "\\udfff"}}',
    "no UTF-8": b'{"\xff": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}',
    "half a character as bytes": b'{"__metadata__": {"a": "\xed\xa0\x80"}}',
    "UTF-16": json.dumps({}).encode("utf-16"),
    "a byte order mark": json.dumps({}).encode("utf-8-sig"),
    "deep nesting": b'{"a":' * (LONG // 5),
    "many lists": b'{"a":[' + b"[]," * (LONG // 20) + b"[]]}",
    "many dimensions": entry("a", shape=[2] * (LONG // 20)),
    "large dimensions": b'{"a": {"dtype": "U8", "shape": [%s1], "data_offsets": [0, 1]}}' % (b"9" * 4000 + b",") * 1000,
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused(tmp_path: Path, case: str) -> None:
    raw = HOSTILE[case]
    file = tmp_path / "part/model.safetensors"
    file.parent.mkdir()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0")
    with limited():
        assert parsed(raw) is None
        with pytest.raises(ModelError) as reported, watched():
            open_component(tmp_path, Component("part", "x:Y"))
    assert str(file) in str(reported.value)
    assert len(str(reported.value)) < 1000


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 100_000_000, 17_000_000, 400])
def test_lengths_that_no_header_has(tmp_path: Path, length: int) -> None:
    file = tmp_path / "part/model.safetensors"
    file.parent.mkdir()
    with file.open("wb") as sparse:
        sparse.write(length.to_bytes(8, "little") + b"{")
        sparse.truncate(200_000_000)
    with limited(), pytest.raises(ModelError, match=r"model[.]safetensors is damaged"), watched():
        open_component(tmp_path, Component("part", "x:Y"))


def test_broken_models(tmp_path: Path, record_property: Record) -> None:
    """A component's files, each of them edited in turn; the error names the one."""
    part = tmp_path / "part"
    part.mkdir()
    whole = {
        "model-00001-of-00002.safetensors": len(WHOLE).to_bytes(8, "little") + WHOLE + bytes(25),
        "model-00002-of-00002.safetensors": (2).to_bytes(8, "little") + b"{}",
        "model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
        "config.json": (DEMO / "vae/config.json").read_bytes(),
    }
    inputs = st.sampled_from(sorted(whole)).flatmap(
        lambda name: st.tuples(st.just(name), edited(whole[name]))
    )

    def check_model(one: tuple[str, bytes]) -> None:
        name, data = one
        for file, content in whole.items():
            (part / file).write_bytes(content)
        (part / name).write_bytes(data)
        _, error = attempt(lambda: open_component(tmp_path, Component("part", "x:Y")).shapes, ModelError)
        assert error is None or name in str(error)

    record_property("inputs", try_inputs(check_model, inputs))


def test_names_are_reported_without_what_they_do_to_a_terminal() -> None:
    with pytest.raises(HeaderError) as reported:
        parse_header(entry("\x1b[2J" + "x" * 500, dtype="?"))
    assert str(reported.value).isprintable()
    assert len(str(reported.value)) < 200
