"""``[with]``: parameters of every stage that declares them, below ``[stage.with]`` and items."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from jsonschema import Draft7Validator

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from pydantic import BaseModel, ConfigDict, Field
from runner.api import File, Problem, Stage, Text, hookimpl

RUNNER_API = 1


class Draw(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    height: int = Field(8, ge=1, le=64)


class Frame(BaseModel):
    model_config = ConfigDict(extra="forbid")
    height: int = Field(8, ge=1, le=32)
    border: int = Field(1, description="pixels")


@hookimpl
def runner_stages():
    return (
        Stage("pair.draw", "pair:draw", params="pair:Draw", outputs=(Text("drawn"),), check="pair:check"),
        Stage("pair.frame", "pair:frame", params="pair:Frame", inputs=(Text("drawn"),),
              outputs=(File("page", ".txt"),)),
    )


def check(params, facts):
    return [Problem("13 brings bad luck", "height")] if params.height == 13 else []


def draw(ctx):
    return lambda item: {"drawn": f"{item.params.prompt} {item.params.height}"}


def frame(ctx):
    return lambda item: {"page": f"{item.inputs['drawn']} in {item.params.height}".encode()}
"""
STAGES = """\
version = 1
name = "pair"
budget = { device = "cpu", threads = 1 }
[with]
height = 16
[[stage]]
name = "draw"
uses = "pair.draw"
[[stage]]
name = "frame"
uses = "pair.frame"
"""
ITEMS = """\
[[item]]
id = "fox"
prompt = "a fox"
[[item]]
id = "owl"
prompt = "an owl"
height = 20
"""
OWN = STAGES + "[stage.with]\nheight = 24\n"


@pytest.fixture
def pair(project: Project) -> Project:
    project.plugin("pair", PLUGIN)
    return project


def pages(project: Project) -> list[str]:
    return sorted(path.read_text() for path in (project.folder / "runs/pair/outputs").glob("*.txt"))


def refused(project: Project, text: str, *options: str) -> str:
    project.write("pair.toml", text)
    outcome = project.invoke("validate", "pair.toml", *options)
    assert outcome.code == (2 if options else 3), outcome
    return outcome.stderr


def test_items_come_before_a_stage_a_stage_before_all_and_all_before_defaults(pair: Project) -> None:
    pair.write("pair.toml", OWN + ITEMS)
    outcome = pair.runner("run", "pair.toml")
    assert outcome.code == 0, outcome
    assert pages(pair) == ["a fox 16 in 24", "an owl 20 in 20"]
    outcome = pair.runner("run", "pair.toml", "--set", "with.height=10")
    assert outcome.code == 0, outcome
    assert pages(pair) == ["a fox 10 in 24", "a fox 16 in 24", "an owl 20 in 20"]
    # what ran is what the run directory says
    recorded = tomli.loads((pair.folder / "runs/pair/manifest.toml").read_text())
    assert recorded["with"] == {"height": 10}


def test_a_run_is_kept_with_the_overrides_of_a_manifest_without_the_table(pair: Project) -> None:
    pair.write("pair.toml", STAGES.replace("[with]\nheight = 16\n", "") + ITEMS)
    assert pair.runner("run", "pair.toml", "--set", "with.height=10").code == 0
    assert pages(pair) == ["a fox 10 in 10", "an owl 20 in 20"]
    kept = pair.folder / "runs/pair/manifest.toml"
    assert tomli.loads(kept.read_text())["with"] == {"height": 10}
    assert pair.invoke("validate", str(kept)).code == 0


def test_an_output_is_made_again_with_what_the_table_gave(pair: Project) -> None:
    pair.write("pair.toml", OWN + ITEMS)
    assert pair.runner("run", "pair.toml").code == 0
    (page,) = (pair.folder / "runs/pair/outputs").glob("fox-*.txt")
    outcome = pair.runner("reproduce", str(page))
    assert outcome.code == 0, outcome
    assert "bit for bit" in outcome.stderr
    outcome = pair.runner("reproduce", str(page), "--set", "with.height=9")
    assert outcome.code == 2, outcome
    assert "with the parameters that it was made with" in outcome.stderr


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (
            ("height = 16", "hieght = 16"),
            "5:1",
            "unknown key 'hieght' in [with]: no stage of this manifest has",
        ),
        (("height = 16", "hieght = 16"), "5:1", "it; did you mean 'height'?"),
        (("height = 16", 'height = 16\nvram = "1GiB"'), "6:1", "it belongs in [budget]"),
        (("height = 16", "height = 40"), "5:10", "'height': must be less than or equal to 32, not 40"),
        (("height = 16", 'height = "16"'), "5:10", "'height' must be a whole number, not '16'"),
        (("height = 16", "height = 13"), "5:10", "13 brings bad luck"),
        (("[with]\nheight = 16", "with = 3"), "4:8", "'with' must be a table, not 3"),
    ],
)
def test_what_is_wrong_in_the_table_is_refused_where_it_stands(
    pair: Project, change: tuple[str, str], place: str, words: str
) -> None:
    # the item without a height of its own is checked with that of the table
    message = refused(pair, STAGES.replace(*change) + ITEMS.replace("height = 20\n", ""))
    assert f"pair.toml:{place}: " in message
    assert words in message


def test_a_value_that_every_item_overrides_is_checked_too(pair: Project) -> None:
    one = ITEMS.partition('[[item]]\nid = "owl"')[2]
    text = STAGES.replace("height = 16", "height = 99") + "[[item]]" + one
    assert "pair.toml:5:10: 'height': must be less than or equal to 64, not 99" in refused(pair, text)


def test_an_unknown_key_on_the_command_line_is_a_usage_error(pair: Project) -> None:
    message = refused(pair, STAGES + ITEMS, "--set", "with.hieght=3")
    assert "--set with.hieght=3: unknown key 'hieght' in [with]" in message
    assert "did you mean 'height'?" in message
    assert "it is set as with.height or stage.draw.with.height" in refused(
        pair, STAGES + ITEMS, "--set", "height=3"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (STAGES + ITEMS, "changes 1 of 2 items: the others have 'height' of their own"),
        (OWN + ITEMS, "changes 1 of 2 stages: the others have 'height' of their own"),
        (
            OWN.replace('"pair.draw"', '"pair.draw"\nwith = { height = 9 }') + ITEMS,
            "changes nothing: every stage has 'height' of its own",
        ),
        (STAGES + ITEMS.replace("height = 20\n", ""), ""),
    ],
)
def test_an_override_that_others_overrule_is_reported(pair: Project, text: str, expected: str) -> None:
    pair.write("pair.toml", text)
    outcome = pair.invoke("plan", "pair.toml", "--set", "with.height=9")
    assert outcome.code == 0, outcome
    warned = [line for line in outcome.stderr.splitlines() if line.startswith("warning: ")]
    assert warned == ([f"warning: --set with.height=9 {expected}"] if expected else [])


def test_a_text_that_a_stage_makes_takes_the_place_of_the_table_s(pair: Project) -> None:
    pair.plugin(
        "words",
        PLUGIN.replace("pair.", "words.")
        .replace("pair:", "words:")
        .replace('Text("drawn")', 'Text("prompt")')
        .replace("    border: int", "    prompt: str\n    border: int"),
    )
    pair.write(
        "pair.toml",
        STAGES.replace("pair.draw", "words.draw").replace("pair.frame", "words.frame")
        + ITEMS.replace('prompt = "a fox"\n', ""),
    )
    outcome = pair.invoke("plan", "pair.toml", "--set", "with.prompt=a bear")
    assert "changes 1 of 2 items: the others have 'prompt'" in outcome.stderr, outcome


def test_the_schema_has_the_parameters_of_all_stages(pair: Project) -> None:
    schema: dict[str, Any] = json.loads(pair.invoke("schema").stdout)
    check = Draft7Validator(schema)
    assert not list(check.iter_errors(tomli.loads(OWN + ITEMS)))
    for wrong in ("hieght = 16", 'height = "16"', 'id = "fox"'):
        faults = [
            error.absolute_path[0]
            for error in check.iter_errors(tomli.loads(OWN.replace("height = 16", wrong)))
        ]
        assert faults == ["with"]


def test_a_change_that_saves_memory_is_made_where_the_value_stands(pair: Project) -> None:
    source = PLUGIN.replace(
        "height: int = Field(8, ge=1, le=32)",
        'height: int = Field(8, ge=1, le=32, json_schema_extra={"less_memory": [4]})',
    )
    source = source.replace(
        'outputs=(File("page", ".txt"),)', 'outputs=(File("page", ".txt"),), memory="pair:memory"'
    )
    pair.plugin("pair", source + "\n\ndef memory(params, sizes):\n    return params.height << 30\n")
    pair.write("pair.toml", STAGES + ITEMS.replace("height = 20\n", ""))
    outcome = pair.invoke("plan", "pair.toml", "--set", "budget.ram=10GiB")
    assert "height = 4 in [with]" in outcome.stdout + outcome.stderr, outcome
    outcome = pair.invoke("port", "pair.toml", "--ram", "10GiB", "--device", "cpu", "-o", "new.toml")
    assert outcome.code == 0, outcome
    assert tomli.loads((pair.folder / "new.toml").read_text())["with"] == {"height": 4}
    assert "with.height" in outcome.stderr + outcome.stdout
