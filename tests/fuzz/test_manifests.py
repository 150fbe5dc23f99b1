"""Manifests: whatever the text, they load or are refused with their place; what loads stays in its folder."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from fuzz.inputs import edited, spoiled, toml, words
from fuzz.trying import attempt, limited, try_inputs
from hypothesis import strategies as st
from toy_plugin import BEHAVING

from runner.errors import ExitCode
from runner.manifest.load import load
from runner.manifest.problems import ManifestError
from runner.manifest.record import as_run
from runner.pipeline.binding import bind
from runner.plugins import Plugins, discover
from runner.rundir.directory import RunDirectory
from runner.work.work import output_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from project import Project

    from runner.pipeline.binding import Pipeline

    Look = Callable[[bytes], Pipeline | None]
    Record = Callable[[str, Any], None]

WHOLE = BEHAVING.format("well") + '[batch]\nprompts = ["one"]\nseeds = [0, 1]\n[run]\non_oom = "fail"\n'
KEY = "0123456789abcdef" * 4


def table(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    """A table that has some of the fields, all right."""
    strategies = {
        name.strip("_"): field if isinstance(field, st.SearchStrategy) else st.just(field)
        for name, field in fields.items()
    }
    return st.fixed_dictionaries({}, optional=strategies)


file_names = st.from_regex(r"\A\.{0,2}[A-Za-z0-9_-][A-Za-z0-9._-]{0,90}\Z", fullmatch=True)
seeds = st.integers(0, 2**64 - 1)
budgets = table(device="cpu", ram=st.sampled_from(["8GiB", "0.1 TB", "1024 B"]), threads=st.integers(1, 9))
common = table(
    dtype=st.sampled_from(["float32", "bfloat16"]),
    timeout=st.sampled_from([1, 0.5, "2h"]),
    retries=st.integers(0, 100),
    budget=budgets,
    device_map=st.dictionaries(words, words, max_size=1),
)
makes = st.builds(
    lambda more, name, given: {"name": name, "uses": "toy.make", "with": given, **more},
    common,
    st.from_regex(r"\A[A-Za-z0-9_-]{1,9}\Z", fullmatch=True),
    table(steps=st.integers(1, 9), behave=words, prompt=words),
)
writes = st.builds(
    lambda more, given: {"name": "write", "uses": "toy.write", "with": given, **more},
    common,
    table(ending=words),
)
items: Any = st.builds(dict, table(id=file_names, seed=seeds, behave=words), prompt=words.filter(str.strip))
manifests = st.builds(
    lambda name, make, write, item, more: {
        "version": 1,
        "name": name,
        "stage": [make, write],
        "item": item,
        **more,
    },
    file_names,
    makes,
    writes,
    st.lists(items, min_size=1, max_size=3),
    table(
        batch=table(prompts=st.lists(words.filter(str.strip), max_size=3), seeds=st.lists(seeds, max_size=2)),
        budget=budgets,
        run=table(checkpoint_every=st.integers(1, 9)),
        model=table(source=st.sampled_from(["a/b", "./m", "plugin:toy/m"]), revision=words),
    ),
)


@pytest.fixture
def look(toy: Project) -> Iterator[Look]:
    """Loads a manifest of these bytes and binds it to the plugins; None if it is refused as it should be."""
    path = toy.folder / "fuzz.toml"
    with toy.as_environment():
        plugins = discover()
        yield lambda data: looked_at(path, data, plugins)


def looked_at(path: Path, data: bytes, plugins: Plugins) -> Pipeline | None:
    path.write_bytes(data)
    pipeline, error = attempt(lambda: bind(load(path), plugins), ManifestError)
    if error is not None:
        assert error.exit_code in (ExitCode.MANIFEST, ExitCode.PLUGIN)
        assert str(error).startswith(str(path))
        assert not any(unicodedata.category(c) == "Cc" for c in str(error) if c not in "\n\t")
    return pipeline


def check_kept(pipeline: Pipeline) -> None:
    """What was accepted stays in its folder, and means the same when it is written down."""
    manifest = pipeline.manifest
    folder = manifest.folder / "runs" / manifest.table.name
    directory = RunDirectory(folder)
    for stage in pipeline.stages:
        made = [directory.handoff(stage.name, KEY), directory.log(stage.name)]
        for item in pipeline.items:
            made += output_paths(stage, directory, item.id, KEY, item.params[stage.index].canonical).values()
        for path in made:
            assert path.resolve().is_relative_to(folder)
            assert len(path.name) <= 200
    manifest.path.write_bytes(as_run(manifest, manifest.folder))
    assert load(manifest.path).table == manifest.table


def try_manifests(look: Look, inputs: st.SearchStrategy[bytes], record: Record) -> None:
    accepted = 0

    def check(data: bytes) -> None:
        nonlocal accepted
        pipeline = look(data)
        if pipeline is not None:
            accepted += 1
            check_kept(pipeline)

    tried = try_inputs(check, inputs)
    record("inputs", tried)
    assert 0 < accepted < tried


def test_broken_texts(look: Look, record_property: Record) -> None:
    try_manifests(look, edited(WHOLE.encode()), record_property)


def test_odd_tables(look: Look, record_property: Record) -> None:
    def text(tables: dict[str, Any]) -> bytes:
        lines = [f"{toml(name)} = {toml(value)}" for name, value in tables.items()]
        return "\n".join(lines).encode("utf-8", "surrogatepass")

    try_manifests(look, spoiled(manifests).map(text), record_property)


TOO_MUCH = {
    "a key of many parts": ("a." * 500 + "a = 1", "nested deeper than 32 levels"),
    "a header of many parts": ("[" + "a." * 500 + "a]", "nested deeper than 32 levels"),
    "a key that the parser refuses": ("a." * 100_000 + "a = 1", "nested too deeply"),
    "lists in lists": ("a = " + "[" * 300 + "]" * 300, "nested deeper than 32 levels"),
    "lists in lists that the parser refuses": ("a = " + "[" * 100_000, "nested too deeply"),
    "a number of many digits": ("a = 0x" + "f" * 5000, "'a' is a whole number of more than 100 digits"),
    "a number that Python refuses": ("a = " + "9" * 5000, "a number in it has too many digits"),
    "many unknown keys": ("\n".join(f"k{n} = 1" for n in range(5000)), "and 4800 more like these"),
    "a long word": ("a" * 1_000_000 + " = 1", "unknown key 'aaa"),
    "many items": (
        f"batch.seeds = {list(range(3000))}\nbatch.prompts = {['x'] * 3000}",
        "9006000 items are too many",
    ),
    "normal forms": ("batch.prompts = ['" + "\u0315\u0300" * 500_000 + "']\nx = 1", "unknown key 'x'"),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_more_than_anybody_needs(look: Look, toy: Project, case: str) -> None:
    text, words = TOO_MUCH[case]
    manifest = f"{text}\n{BEHAVING.format('well')}".encode()
    with limited():
        assert look(manifest) is None
        outcome = toy.invoke("validate", "fuzz.toml")
    assert outcome.code == 3
    assert words in outcome.stderr
    assert len(outcome.stderr) < 100_000
