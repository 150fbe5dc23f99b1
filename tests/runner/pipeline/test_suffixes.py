"""Files whose suffix a parameter gives: everything that knows a file's name follows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from typing import Any
from pydantic import BaseModel, ConfigDict, Field, model_validator
from runner.api import File, Stage, Text, hookimpl

RUNNER_API = 1


class Paint(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str = ""
    format: str = "auto"

    @model_validator(mode="after")
    def chosen(self):
        if self.format == "auto":
            self.format = "png"
        return self


class Word(BaseModel):
    model_config = ConfigDict(extra="forbid")
    word: str = "webp"


@hookimpl
def runner_stages():
    return (
        Stage("paint.picture", "paint:picture", params="paint:Paint", outputs=(File("picture", ".{format}"),)),
        Stage("paint.frame", "paint:frame", inputs=(File("picture"),), outputs=(File("framed", ".png"),)),
        Stage("paint.of_png", "paint:frame", inputs=(File("picture", ".png"),), outputs=(File("framed", ".png"),)),
        Stage("paint.two", "paint:two", params="paint:Paint",
              outputs=(File("picture", ".{format}"), File("small", ".png"))),
        Stage("paint.say", "paint:say", params="paint:Word", outputs=(Text("format"),)),
    )


def drawn(item, side):
    from PIL import Image

    return Image.new("RGB", (side, side), (len(item.params.prompt) * 20, 80, 120))


def picture(ctx):
    return lambda item: {"picture": drawn(item, 8)}


def two(ctx):
    return lambda item: {"picture": drawn(item, 8), "small": drawn(item, 4)}


def frame(ctx):
    from PIL import Image

    def one(item):
        with Image.open(item.inputs["picture"]) as found:
            assert item.inputs["picture"].suffix == f".{found.format.lower()}"
            return {"framed": found.resize((4, 4)).convert("RGB")}

    return one


def say(ctx):
    return lambda item: {"format": item.params.word}
"""
WRONG = 'Stage("paint.wrong", "paint:say", params="paint:Word", outputs=(File("said", ".{format}"),)),'
HEAD = """\
version = 1
name = "paint"
budget = { device = "cpu", threads = 1 }
"""
ONE = f"""{HEAD}
[[stage]]
name = "picture"
uses = "paint.picture"
"""
FRAMED = f"""{ONE}
[[stage]]
name = "frame"
uses = "paint.frame"
"""
ITEMS = """
[[item]]
id = "fox"
prompt = "a fox"
[[item]]
id = "owl"
prompt = "an owl"
format = "webp"
"""


@pytest.fixture
def paint(project: Project) -> Project:
    project.plugin("paint", PLUGIN)
    return project


def outputs(project: Project, folder: str = "outputs") -> list[str]:
    found = (project.folder / "runs/paint" / folder).glob("*")
    return sorted(path.name for path in found if not path.name.endswith(".runner.json"))


def suffixes(project: Project) -> dict[str, str]:
    return {name.partition("-")[0]: name.partition(".")[2] for name in outputs(project)}


def run(project: Project, text: str, *options: str) -> list[str]:
    """Run it, and return the items that a stage finished."""
    project.write("paint.toml", text)
    outcome = project.runner("run", "paint.toml", "--json", *options)
    assert outcome.code == 0, outcome
    events = [json.loads(line) for line in outcome.stdout.splitlines()]
    return [f"{e['stage']} {e['item']}" for e in events if e.get("event") == "item_finished"]


def test_each_item_has_the_extension_that_its_parameter_gives(paint: Project) -> None:
    assert len(run(paint, ONE + ITEMS)) == 2
    assert suffixes(paint) == {"fox": "png", "owl": "webp"}
    for name in outputs(paint):
        with Image.open(paint.folder / "runs/paint/outputs" / name) as found:
            assert (found.format or "").lower() == name.rpartition(".")[2]
    assert run(paint, ONE + ITEMS) == []
    report = (paint.folder / "runs/paint/report.html").read_text()
    assert all(name in report for name in outputs(paint))


def test_another_format_is_another_key_and_leaves_the_old_file(paint: Project) -> None:
    run(paint, ONE + ITEMS)
    before = outputs(paint)
    assert run(paint, ONE + ITEMS.replace('"webp"', '"jpeg"')) == ["picture owl"]
    assert {*before} < {*outputs(paint)}
    # a run that is not complete keeps what it has made, in its present formats
    paint.write("paint.toml", ONE + ITEMS.replace('"webp"', '"jpeg"') + '[[item]]\nprompt = "a bear"\n')
    cleaned = paint.runner("runs", "clean", "paint", "--outputs")
    assert cleaned.code == 0, cleaned
    assert suffixes(paint) == {"fox": "png", "owl": "jpeg"}


def test_an_item_of_another_name_gets_a_link(paint: Project) -> None:
    run(paint, ONE + ITEMS)
    assert run(paint, ONE + ITEMS.replace('"owl"', '"bird"')) == []
    named = {name.partition("-")[0]: paint.folder / "runs/paint/outputs" / name for name in outputs(paint)}
    assert named["bird"].suffix == ".webp"
    assert named["bird"].samefile(named["owl"])


def test_a_later_stage_reads_the_file_and_it_is_removed_with_its_hand_off(paint: Project) -> None:
    run(paint, FRAMED + ITEMS)
    made = outputs(paint, "handoff/picture")
    assert sorted(name.rpartition(".")[2] for name in made) == ["png", "safetensors", "safetensors", "webp"]
    assert {name.partition(".")[2] for name in made} >= {"picture.png", "picture.webp"}
    again = FRAMED + ITEMS.replace('"a fox"', '"a red fox"') + '[run]\nkeep_handoffs = "needed"\n'
    assert run(paint, again) == ["picture fox", "frame fox"]
    assert not outputs(paint, "handoff/picture") or all(
        name in made for name in outputs(paint, "handoff/picture")
    )
    assert len([name for name in outputs(paint, "handoff/picture") if name.endswith(".webp")]) == 0


def test_files_of_one_extension_are_reported_apart(paint: Project) -> None:
    run(paint, ONE.replace("paint.picture", "paint.two") + ITEMS)
    rests = sorted(f"{name.partition('-')[0]}.{name.partition('.')[2]}" for name in outputs(paint))
    assert rests == ["fox.picture.png", "fox.small.png", "owl.png", "owl.webp"]


def test_it_is_made_again_with_its_extension(paint: Project) -> None:
    run(paint, ONE + ITEMS)
    (webp,) = (paint.folder / "runs/paint/outputs").glob("*.webp")
    again = paint.runner("reproduce", str(webp), "-o", "again.webp")
    assert again.code == 0, again
    assert (paint.folder / "again.webp").read_bytes() == webp.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ('"webp"', '"../x"', "15:10", "'format' is the extension of a file: 1 to 16 of a-z 0-9, not '../x'"),
        ('"webp"', '"PNG"', "15:10", "not 'PNG'"),
        ('"webp"', '""', "15:10", "not ''"),
        ('"webp"', '"abcdefghijklmnopq"', "15:10", "not 'abcdefghijklmnopq'"),
        ("[[item]]", '[with]\nformat = "p.g"\n[[item]]', "10:10", "not 'p.g'"),
        ("[[item]]", '[stage.with]\nformat = "p/g"\n[[item]]', "10:10", "not 'p/g'"),
    ],
)
def test_what_cannot_be_an_extension_is_refused_where_it_is_set(
    paint: Project, old: str, new: str, place: str, words: str
) -> None:
    text = ONE + ITEMS
    paint.write("paint.toml", text.replace(old, new, 1))
    outcome = paint.invoke("validate", "paint.toml")
    assert outcome.code == 3, outcome
    assert f"paint.toml:{place}: " in outcome.stderr
    assert words in outcome.stderr


def test_a_stage_that_needs_another_type_is_reported_before_the_run(paint: Project) -> None:
    paint.write("paint.toml", FRAMED.replace("paint.frame", "paint.of_png") + ITEMS)
    outcome = paint.invoke("validate", "paint.toml")
    assert outcome.code == 3, outcome
    words = "stage 'picture' leaves 'picture' as a .webp file, and stage 'frame' needs a .png file"
    assert f"paint.toml:19:10: {words}" in outcome.stderr
    paint.write("paint.toml", FRAMED.replace("paint.frame", "paint.of_png") + ITEMS.replace("webp", "png"))
    assert paint.invoke("validate", "paint.toml").code == 0


def test_a_stage_cannot_make_the_extension_and_a_plugin_must_declare_it(paint: Project) -> None:
    said = ONE.replace("[[stage]]", '[[stage]]\nname = "say"\nuses = "paint.say"\n[[stage]]')
    paint.write("paint.toml", said + ITEMS)
    outcome = paint.invoke("validate", "paint.toml")
    assert "'format' is the extension of a file, and stage 'say' makes it as it runs" in outcome.stderr, (
        outcome
    )
    source = PLUGIN.replace("    return (\n", f"    return (\n        {WRONG}\n", 1)
    paint.plugin("lost", source.replace("paint.", "lost.").replace("paint:", "lost:"))
    paint.write("paint.toml", f'{HEAD}[[stage]]\nname = "wrong"\nuses = "lost.wrong"\n[[item]]\nword = "x"\n')
    outcome = paint.invoke("validate", "paint.toml")
    assert outcome.code == 4, outcome
    assert "outputs[0]: suffix '.{format}' names no parameter of the stage" in outcome.stderr
    checked = paint.runner("plugins", "check", "lost")
    assert checked.code == 4, checked
    assert "names no parameter of the stage" in checked.stdout + checked.stderr


def test_a_plugin_with_it_passes_its_checks(paint: Project) -> None:
    paint.write("two.toml", ONE + ITEMS)
    checked = paint.runner("plugins", "check", "paint", "--manifest", "two.toml")
    assert checked.code == 0, checked
