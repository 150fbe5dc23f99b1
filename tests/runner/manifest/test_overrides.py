"""Values that ``--set`` replaces: in the table that is meant, within bounds, else refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runner.errors import ExitCode
from runner.manifest.overrides import TEXT_LIMIT, Override, apply
from runner.manifest.problems import Problems


def tables() -> dict[str, Any]:
    return {
        "name": "x",
        "stage": [{"name": "one", "dtype": "float32"}, {"name": "two"}],
        "item": [{"id": "fox"}],
        "budget": {"ram": "1GiB"},
    }


def after(*texts: str) -> dict[str, Any]:
    raw, problems = tables(), Problems()
    apply(raw, texts, problems)
    problems.check()
    return raw


def test_what_is_replaced() -> None:
    assert after("name=y")["name"] == "y"
    assert after("budget.ram=6GiB", "budget.vram = '2GiB'")["budget"] == {"ram": "6GiB", "vram": "2GiB"}
    assert after("stage.two.with.steps=4")["stage"][1] == {"name": "two", "with": {"steps": 4}}
    assert after("stage.one.dtype=bfloat16")["stage"][0]["dtype"] == "bfloat16"
    assert after("item.fox.seed=7")["item"] == [{"id": "fox", "seed": 7}]
    assert after("run.on_oom=fail", "run.on_oom=lower")["run"] == {"on_oom": "lower"}
    assert after("name=a=b")["name"] == "a=b"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name", "write it KEY=VALUE"),
        ("=1", "write it KEY=VALUE"),
        ("budget..ram=1", "write it KEY=VALUE"),
        ("stage.tow.with.steps=1", "no stage 'tow'; did you mean 'two'"),
        ("stage=1", "no stage ''"),
        ("stage.one=1", "the key is not in a table"),
        ("item.cat.seed=1", "no item 'cat'"),
        ("name.more.still=1", "'more' is not in a table|the key is not in a table"),
        ("name.a.b.c=1", "'a' is not in a table"),
        ("name=" + "[" * 40 + "]" * 40, "the value is nested deeper"),
        ("name=1" + "0" * 200, "the value is a whole number of more than 100 digits"),
        ("a" + ".a" * 40 + "=1", "the key has more than 32 parts"),
    ],
)
def test_what_is_refused(text: str, words: str) -> None:
    problems = Problems()
    raw = tables()
    assert apply(raw, [text, "name=y"], problems) == [Override("name=y", ("name",), "y")]
    assert raw["name"] == "y"
    (found,) = problems.found
    assert found.exit_code == ExitCode.USAGE
    assert str(found).startswith(f"--set {text[:TEXT_LIMIT]}: ")
    assert re.search(words, found.message)


def test_an_item_of_a_manifest_without_any() -> None:
    problems = Problems()
    assert apply({"stage": []}, ["item.fox.seed=1"], problems) == []
    assert [found.message for found in problems.found] == ["the manifest has no [[item]]"]
