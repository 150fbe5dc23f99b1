"""Files of items: whatever the bytes, they are read or refused, row by row, with their place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fuzz.inputs import DIGITS, edited, spoiled, values, words
from fuzz.trying import attempt, limited, try_inputs
from hypothesis import strategies as st
from toy_plugin import STAGES

from runner.errors import ExitCode
from runner.manifest.load import load
from runner.manifest.problems import ManifestError
from runner.pipeline.binding import bind
from runner.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from project import Project

    from runner.pipeline.binding import Pipeline

    Read = Callable[[str, bytes], Pipeline | None]
    Record = Callable[[str, Any], None]

ROWS = {
    ".jsonl": '{"prompt": "a fox", "seed": 7}\n{"prompt": "an owl", "id": "owl", "steps": 3}\n',
    ".csv": 'prompt,seed,id\na fox,7,\n"an owl, asleep",,owl\n"two\nlines",8,\n',
    ".txt": "a fox\n\nan owl, asleep\n  ein Fuchs \n",
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7")
objects = st.fixed_dictionaries(
    {"prompt": words},
    optional={"id": words, "seed": st.integers(0, 2**64), "steps": st.integers(1, 9), "behave": values},
)


@pytest.fixture
def read(toy: Project) -> Iterator[Read]:
    """Reads a file of items with this suffix and these bytes; None if it is refused as it should be."""

    def read_file(suffix: str, data: bytes) -> Pipeline | None:
        manifest = toy.write("items.toml", f'{STAGES}\n[batch]\nfile = "items{suffix}"\n')
        (toy.folder / f"items{suffix}").write_bytes(data)
        pipeline, error = attempt(lambda: bind(load(manifest), plugins), ManifestError)
        if error is not None:
            assert error.exit_code == ExitCode.MANIFEST
            assert str(error).startswith(str(toy.folder / "items"))
        return pipeline

    with toy.as_environment():
        plugins = discover()
        yield read_file


@pytest.mark.parametrize("suffix", ROWS)
def test_broken_files(read: Read, record_property: Record, suffix: str) -> None:
    accepted = 0

    def check(data: bytes) -> None:
        nonlocal accepted
        pipeline = read(suffix, data)
        accepted += pipeline is not None

    recoded = st.sampled_from(ENCODINGS).map(ROWS[suffix].encode)
    tried = try_inputs(check, st.one_of(edited(ROWS[suffix].encode()), recoded, st.binary(max_size=60)))
    record_property("inputs", tried)
    assert 0 < accepted < tried


def test_odd_objects(read: Read, record_property: Record) -> None:
    """What JSON can say: halves of characters, numbers without end, names of every kind."""
    accepted = 0

    def check(rows: list[dict[str, Any]]) -> None:
        nonlocal accepted
        text = "\n".join(json.dumps(row) for row in rows)
        pipeline = read(".jsonl", text.encode())
        if pipeline is not None:
            accepted += 1
            assert len({item.id for item in pipeline.items}) == len(rows)

    tried = try_inputs(check, st.lists(spoiled(objects), min_size=1, max_size=4))
    record_property("inputs", tried)
    assert 0 < accepted < tried


LONG = 10_000_000  # bytes
TOO_MUCH = {
    "a long line of text": (".txt", b"x" * LONG, None),
    "a long line of JSON": (".jsonl", b'{"prompt": "' + b"x" * LONG + b'"}', None),
    "a long cell": (".csv", b'prompt\n"' + b"x" * LONG + b'"', "not CSV: field larger"),
    "a long name": (".jsonl", b'{"prompt": "x", "' + b"y" * LONG + b'": 1}', "unknown key 'yyy"),
    "a broken long line": (".jsonl", b'{"prompt": "' + b"x" * LONG, "not JSON"),
    "nesting that is read": (".jsonl", b'{"prompt": ' + b"[" * 500 + b"]" * 500 + b"}", "deeper than 32"),
    "nesting that is not": (".jsonl", b"[" * LONG, "nested or numbers too long"),
    "digits that are read": (".jsonl", b'{"prompt": "x", "seed": ' + b"9" * 4000 + b"}", "'seed' is a whole"),
    "digits that are not": (".jsonl", f'{{"prompt": "x", "seed": {DIGITS}}}'.encode(), "numbers too long"),
    "the same row again and again": (".txt", b"x\n" * 5_000, None),
    "nothing right": (".jsonl", b"{\n" * 5_000, "and 4800 more like these"),
    "normal forms": (".txt", "\u0315\u0300".encode() * (LONG // 4), None),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_more_than_anybody_needs(read: Read, toy: Project, case: str) -> None:
    suffix, data, refusal = TOO_MUCH[case]
    with limited():
        pipeline = read(suffix, data)
        assert (pipeline is None) == (refusal is not None)
        outcome = toy.invoke("validate", "items.toml")
    assert outcome.code == (3 if refusal else 0), outcome.stderr[-2000:]
    assert (refusal or "ok") in outcome.stderr
    assert len(outcome.stderr) < 200_000
