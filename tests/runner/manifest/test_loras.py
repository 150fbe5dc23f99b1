"""``[[lora]]`` tables and items' ``lora_weights``: what is wrong with them, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from lora_files import FLUX, write_lora

from runner.cli.pipelines import open_pipeline

if TYPE_CHECKING:
    from project import Project

GOOD = """\
version = 1
name = "demo"
[model]
source = "plugin:flux/demo"
[[lora]]
source = "./style.safetensors"
weight = 0.8
[[lora]]
source = "owner/loras@main:people/anna.v2.safetensors"
[[stage]]
name = "encode"
uses = "flux.encode"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
id = "fox"
prompt = "a fox"
lora_weights = { style = -0.5 }
[[item]]
id = "cat"
prompt = "a cat"
"""
ITEM = "lora_weights = { style = -0.5 }"

WRONG = {
    "an unknown key": ("weight = 0.8", "wieght = 0.8", "7:1", "unknown key 'wieght'; did you mean 'weight'?"),
    "an unknown table": ('[[lora]]\nsource = "./s', '[[loras]]\nsource = "./s', "5:3", "did you mean 'lora'?"),
    "a table by itself": ('[[lora]]\nsource = "./style.safetensors"\nweight = 0.8\n[[lora]]', "[lora]", "5:2", "write [[lora]]"),
    "a weight that is text": ("weight = 0.8", 'weight = "0.8"', "7:10", "'weight' must be a number"),
    "an endless weight": ("weight = 0.8", "weight = inf", "7:10", "'weight' must be a finite number"),
    "no source": ('source = "./style.safetensors"\n', "", "5:3", "'source' is missing"),
    "a pickle": ("./style.safetensors", "./style.pt", "6:10", "pickles, which can run code"),
    "a pickle on the hub": ("anna.v2.safetensors", "anna.bin", "9:10", "pickles, which can run code"),
    "a repository": ("owner/loras@main:people/anna.v2.safetensors", "owner/loras", "9:10", '"owner/loras:FILE.safetensors"'),
    "a URL": ("./style.safetensors", "https://civitai.com/x.safetensors", "6:10", "cannot be loaded from a URL"),
    "a page of the hub": (
        "./style.safetensors",
        "https://huggingface.co/lab/loras/blob/v1/a/b.safetensors",
        "6:10",
        'write "lab/loras@v1:a/b.safetensors"',
    ),
    "a way out of the repository": ("people/anna", "../anna", "9:10", "is not a file of the repository"),
    "no revision": ("@main", "@a..b", "9:10", "is not a revision"),
    "no dot": ("./style.safetensors", "style.safetensors", "6:10", 'write "./style.safetensors" for the one'),
    "no path": ("./style.safetensors", "gone.safetensors", "6:10", "a file starts with ./, / or ~"),
    "a packaged one": ("./style.safetensors", "plugin:flux/demo", "6:10", "cannot be in a plugin"),
    "the same name": ("weight = 0.8", 'name = "anna.v2"', "9:10", "two [[lora]] have the name 'anna.v2'"),
    "no model": ('[model]\nsource = "plugin:flux/demo"\n', "", "3:3", "this manifest has no [model]"),
    "an unknown name": (ITEM, "lora_weights = { styl = 1 }", "22:16", "no [[lora]] of the name 'styl'; did you mean 'style'?"),
    "a weight of an item": (ITEM, "lora_weights = { style = true }", "22:16", "'style' must be a number, not true"),
    "an endless weight of an item": (ITEM, "lora_weights = { style = nan }", "22:16", "must be a number, not nan"),
    "no table": (ITEM, "lora_weights = 0.5", "22:16", "must be a table of weights by name"),
    "a misspelt field": ("lora_weights", "lora_weigths", "22:1", "did you mean 'lora_weights'?"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused_with_its_place(project: Project, case: str) -> None:
    old, new, place, words = WRONG[case]
    assert old in GOOD
    project.write("style.safetensors", b"")
    project.write("demo.toml", GOOD.replace(old, new, 1))
    outcome = project.invoke("validate", "demo.toml")
    assert outcome.code == 3, outcome
    assert f"demo.toml:{place}" in outcome.stderr, outcome
    assert words in outcome.stderr, outcome
    assert "Traceback" not in outcome.stderr


def weights(project: Project, *sets: str) -> dict[str, dict[str, float]]:
    with project.as_environment():
        found = open_pipeline(project.folder / "demo.toml", sets)
    return {item.id: dict(item.lora_weights) for item in found.items}


@pytest.fixture
def demo(project: Project) -> Project:
    project.write("demo.toml", GOOD)

    write_lora(project.folder / "style.safetensors", DEMO, {"transformer": FLUX})
    return project


def test_an_item_has_the_manifests_weights_but_for_its_own(demo: Project) -> None:
    assert weights(demo) == {"fox": {"style": -0.5, "anna.v2": 1.0}, "cat": {"style": 0.8, "anna.v2": 1.0}}
    assert weights(demo, "lora.style.weight=2")["cat"]["style"] == 2.0
    assert weights(demo, "item.fox.lora_weights.style=0")["fox"]["style"] == 0.0


@pytest.mark.parametrize("value", ["nan", "inf", "true", "half", "{}"])
def test_an_override_of_a_weight_that_is_no_number(demo: Project, value: str) -> None:
    outcome = demo.invoke("validate", "demo.toml", "--set", f"lora.style.weight={value}")
    assert outcome.code == 3, outcome
    assert f"--set lora.style.weight={value}: 'weight' must be a" in outcome.stderr


def test_adapters_of_a_model_that_no_stage_loads(demo: Project) -> None:
    own = '"\nmodel = { source = "plugin:flux/demo" }'
    stages = GOOD.replace('.encode"', f".encode{own}").replace('.diffuse"', f".diffuse{own}")
    demo.write("demo.toml", stages)
    assert "no effect" not in demo.invoke("validate", "demo.toml").stderr
    demo.write("demo.toml", stages.replace('.decode"', f".decode{own}"))
    outcome = demo.invoke("validate", "demo.toml")
    assert outcome.code == 3, outcome
    assert "demo.toml:5:3: [[lora]] adapts the model of [model], and no stage loads" in outcome.stderr


def test_overrides_of_what_has_dots_in_its_name(demo: Project) -> None:
    demo.write("demo.toml", GOOD.replace('id = "fox"', 'id = "fox.v2"'))
    assert weights(demo, "lora.anna.v2.weight=3")["cat"]["anna.v2"] == 3.0
    found = weights(demo, "item.fox.v2.lora_weights.anna.v2=4", "item.fox.v2.lora_weights.style=5")
    assert found["fox.v2"] == {"style": 5.0, "anna.v2": 4.0}
    outcome = demo.invoke("validate", "demo.toml", "--set", "lora.anna.v3.weight=3")
    assert "has no lora 'anna'; did you mean 'anna.v2'?" in outcome.stderr, outcome


def test_overrides_of_adapters_that_are_not_there_or_change_nothing(demo: Project) -> None:
    outcome = demo.invoke("validate", "demo.toml", "--set", "lora.stile.weight=1")
    assert outcome.code == 2, outcome
    assert "has no lora 'stile'; did you mean 'style'?" in outcome.stderr
    demo.write("demo.toml", GOOD.replace('[[item]]\nid = "cat"\nprompt = "a cat"\n', ""))
    outcome = demo.invoke("validate", "demo.toml", "--set", "lora.style.weight=1")
    assert (
        "lora.style.weight=1 changes nothing: every item has a weight of 'style' of its own" in outcome.stderr
    )


@pytest.mark.parametrize(
    ("name", "text", "place", "words"),
    [
        ("a.jsonl", '{"prompt": "x", "lora_weights": {"styl": 1}}', "a.jsonl:1:17", "did you mean 'style'?"),
        ("a.csv", 'prompt,lora_weights\nx,"{""styl"": 1}"', "a.csv:2", "did you mean 'style'?"),
        ("a.csv", "prompt,lora_weights\nx,0.5", "a.csv:2:3", '{"style": 0.5} (JSON)'),
        (
            "a.csv",
            f'prompt,lora_weights\nx,"{{""style"": {10**400}}}"',
            "a.csv:2",
            "must be a number, not 1000",
        ),
        ("a.csv", 'prompt,lora_weights\nx,"{""style"": NaN}"', "a.csv:2", "NaN is not a JSON number"),
        (
            "a.csv",
            'prompt,lora_weights\nx,"{""style"": 1, ""style"": 2}"',
            "a.csv:2",
            "'lora_weights': 'style' is given twice",
        ),
    ],
)
def test_items_in_files_are_checked_in_their_lines(
    demo: Project, name: str, text: str, place: str, words: str
) -> None:
    demo.write(name, text)
    demo.write("demo.toml", GOOD.replace("[[item]]", f'[batch]\nfile = "{name}"\n[[item]]', 1))
    outcome = demo.invoke("validate", "demo.toml")
    assert outcome.code == 3, outcome
    assert place in outcome.stderr, outcome
    assert words in outcome.stderr, outcome


def test_weights_of_items_in_files(demo: Project) -> None:
    demo.write("a.csv", 'id,prompt,lora_weights\none,x,"{""style"": 0.25}"\ntwo,y,')
    demo.write("demo.toml", GOOD.replace("[[item]]", '[batch]\nfile = "a.csv"\n[[item]]', 1))
    found = weights(demo)
    assert [found["one"]["style"], found["two"]["style"]] == [0.25, 0.8]


def test_without_its_library_the_command_to_install_it_is_named(
    demo: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.pipeline.adapters.find_spec", lambda _: None)
    outcome = demo.invoke("plan", "demo.toml")
    assert outcome.code == 4, outcome
    assert "demo.toml:5:3: [[lora]] needs peft" in outcome.stderr
    assert "pip install 'stage-runner[lora]'" in outcome.stderr
