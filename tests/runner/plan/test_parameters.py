"""What of a stage's parameters is in its keys, and texts that take a parameter's place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project import Project

WORDS = """
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from runner.api import Stage, Tensor, Text, hookimpl

RUNNER_API = 1


class Hint(BaseModel):
    model_config = ConfigDict(extra="forbid")
    hint: bool = True


class How(BaseModel):
    model_config = ConfigDict(extra="forbid")
    loud: bool


class Say(BaseModel):
    model_config = ConfigDict(extra="forbid")
    how: How | None = None
    word: Literal["one", "two", "none"] = "none"
    times: int = 3
    hidden: int = Field(0, exclude=True)
    secret: SecretStr = SecretStr("")


@hookimpl
def runner_stages():
    said = (Text("said"),)
    return [
        Stage("words.always", "words:start_hint", params="words:Hint", outputs=(Text("word"),)),
        Stage("words.perhaps", "words:start_hint", params="words:Hint", outputs=(Text("word", optional=True), Text("x", optional=True))),
        Stage("words.say", "words:start_say", params="words:Say", outputs=said, memory="words:memory"),
    ]


def memory(params, sizes):
    return params.times


def start_hint(ctx):
    return lambda item: {"word": "two"} if item.params.hint else {"x": "x"}


def start_say(ctx):
    def one(item):
        p = item.params
        return {"said": f"{p.word} {p.times} {p.hidden} {p.secret.get_secret_value()}"}

    return one
"""
MANIFEST = """
version = 1
name = "words"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "say"
uses = "words.say"
"""
BEFORE = """
[[stage]]
name = "hint"
uses = "words.{}"
[[stage]]
name = "say"
uses = "words.say"
"""


def said(project: Project, text: str) -> dict[str, str]:
    project.plugin("words", WORDS)
    project.write("words.toml", text)
    outcome = project.runner("run", "words.toml", "--json")
    assert outcome.code == 0, outcome
    outputs = outcome.of("run_finished")[0]["outputs"]
    return {
        path.rpartition("/")[2].partition("-")[0]: (project.folder / path).read_text()
        for path in outputs
        if "x." not in path
    }


def items(**fields: dict[str, Any]) -> str:
    tables = (
        f"[[item]]\nid = {json.dumps(name)}\n"
        + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
        for name, values in fields.items()
    )
    return "".join(tables)


def test_every_parameter_is_in_the_key_shown_or_not(project: Project) -> None:
    batch = items(a={"hidden": 1}, b={"hidden": 2}, c={"secret": "x"}, d={"secret": "y"})
    assert said(project, MANIFEST + batch) == {
        "a": "none 3 1 ",
        "b": "none 3 2 ",
        "c": "none 3 0 x",
        "d": "none 3 0 y",
    }
    journal = (project.folder / "runs/words/journal.jsonl").read_text()
    assert '"secret": "sha256:' in journal
    assert '"secret": "x"' not in journal


def test_a_text_takes_the_place_of_a_parameter_that_would_refuse_the_word_for_it(project: Project) -> None:
    text = MANIFEST.replace('[[stage]]\nname = "say"\nuses = "words.say"\n', BEFORE.format("always"))
    assert said(project, text + items(a={}, b={"times": 5})) == {"a": "two 3 0 ", "b": "two 5 0 "}
    # defaults are part of the key: to write one out changes nothing
    project.write("words.toml", text + items(a={"times": 3}, b={"times": 5}))
    assert project.runner("run", "words.toml", "--json").of("stage_started") == []


def test_an_error_in_a_parameter_that_is_a_table_names_it(project: Project) -> None:
    project.plugin("words", WORDS)
    project.write("words.toml", MANIFEST + "[stage.with.how]\nluod = true\n" + items(a={}))
    outcome = project.runner("validate", "words.toml")
    assert outcome.code == 3, outcome
    assert "unknown key 'luod' in 'how'" in outcome.stderr
    assert "'loud' is missing in 'how'" in outcome.stderr


def test_where_an_optional_text_is_left_out_the_items_own_counts(project: Project) -> None:
    text = MANIFEST.replace('[[stage]]\nname = "say"\nuses = "words.say"\n', BEFORE.format("perhaps"))
    batch = items(a={"word": "one"}, b={"word": "one", "hint": False}, c={"word": "two", "hint": False})
    assert said(project, text + batch) == {"a": "two 3 0 ", "b": "one 3 0 ", "c": "two 3 0 "}
