"""Commands on odd manifests, items and models: an exit code and words, never a traceback, nothing written."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from fuzz.inputs import edited
from fuzz.trying import try_inputs
from hypothesis import strategies as st
from toy_plugin import BEHAVING

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

MANIFEST = BEHAVING.format("well").encode() + b'[batch]\nfile = "items.jsonl"\n'
ITEMS = b'{"prompt": "a fox", "seed": 7}\n'
# what was wrong: at a place of a file, or in a sentence
ANSWER = re.compile(
    r"^(?:(?:fuzz\.toml|items\.jsonl):(?:\d+| )|--set |error: |usage: |Usage: ).*\S", re.MULTILINE
)
SETTINGS = ["stage.make.with.steps=4", "budget.vram=6GiB", "name=x", "batch.prompts=['a']", "run.on_oom=fail"]


def test_commands(toy: Project, record_property: Callable[[str, Any], None]) -> None:
    codes: set[int] = set()

    def check(one: tuple[str, bytes, bytes, str, bool]) -> None:
        command, manifest, items, setting, as_json = one
        (toy.folder / "fuzz.toml").write_bytes(manifest)
        (toy.folder / "items.jsonl").write_bytes(items)
        before = toy.files()
        options = [f"--set={setting}", *(["--json"] if as_json else [])]
        outcome = toy.invoke(command, "fuzz.toml", *options)
        codes.add(outcome.code)
        assert outcome.code in (0, 2, 3, 4, 5, 8), outcome
        assert "Traceback" not in outcome.stderr, outcome
        if outcome.code == 0:
            assert outcome.stdout or "fuzz.toml: ok" in outcome.stderr, outcome
        elif not as_json:
            assert ANSWER.search(outcome.stderr), outcome
        if as_json:
            assert all(isinstance(json.loads(line), dict) for line in outcome.stdout.splitlines())
        assert toy.files() == before

    settings = st.one_of(
        st.sampled_from(SETTINGS),
        st.sampled_from(SETTINGS)
        .flatmap(lambda s: edited(s.encode(), 2))
        .map(lambda b: b.decode(errors="replace")),
    )
    inputs = st.tuples(
        st.sampled_from(["validate", "plan"]),
        st.one_of(st.just(MANIFEST), edited(MANIFEST, 2)),
        st.one_of(st.just(ITEMS), edited(ITEMS, 2)),
        settings,
        st.booleans(),
    )
    record_property("inputs", try_inputs(check, inputs, share=0.3))
    assert {0, 2, 3} <= codes
