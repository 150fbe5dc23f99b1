"""Stages whose components and parameters depend on the model: what a plugin's functions say of each model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import save_file

from runner.manifest.load import load
from runner.pipeline.binding import bind
from runner.plugins import discover
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

PLUGIN = """
from pydantic import BaseModel, ConfigDict, Field, create_model
from runner.api import Bundle, Bundled, Component, File, Stage, UnsupportedModelError, hookimpl

RUNNER_API = 1


@hookimpl
def runner_stages():
    return (
        Stage("any.first", "any_model:first", params="any_model:first_params", components="any_model:first_parts",
              outputs=(Bundle("made"),)),
        Stage("any.second", "any_model:second", components="any_model:second_parts", inputs=(Bundle("made"),),
              outputs=(File("text", ".txt"),)),
    )


def parts(model, loaded):
    if model.pipeline == "Unknown":
        raise UnsupportedModelError("only pipelines with a name are taken; name one")
    names = [name for name in model.index if not name.startswith("_")]
    shell = dict(config_only=True, buffers=("mean",))
    return [Component(name, f"any_model:{name.title()}", **({} if name == loaded else shell)) for name in names]


def first_parts(model):
    return parts(model, "one")


def second_parts(model):
    return parts(model, "two")


def first_params(model):
    fields = {name: (int, Field(config["size"], ge=1)) for name, config in model.configs.items()}
    return create_model("Params", __config__=ConfigDict(extra="forbid"), prompt=(str, ...), **fields)


def __getattr__(name):
    import torch

    class Two(torch.nn.Linear):
        def __init__(self, size):
            super().__init__(size, size)

    class One(Two):
        def __init__(self, size):
            super().__init__(size)
            self.register_buffer("mean", torch.zeros(1))

    if name in ("One", "Two"):
        return locals()[name]
    raise AttributeError(name)


def first(ctx):
    import torch

    def one(item):
        made = {"a": torch.ones(2), "b": torch.tensor([1, 2])}
        values = {"pipeline": ctx.model.pipeline, "two": str(ctx.dtype_of("two")), "text": item.params.prompt}
        return {"made": Bundled(made, values)}

    return one


def second(ctx):
    def one(item):
        made = item.inputs["made"]
        said = {n: str(t.dtype) for n, t in made.tensors.items()} | made.values
        buffers = {name: tensor.tolist() for name, tensor in ctx.buffers("one").items()}
        return {"text": repr(sorted({**said, "one": ctx.config("one")["size"], **buffers}.items())).encode()}

    return one
"""

MANIFEST = """
version = 1
name = "any"
[model]
source = "./model"
[[stage]]
name = "first"
uses = "any.first"
save_dtype = "bfloat16"
[[stage]]
name = "second"
uses = "any.second"
dtype = "float16"
[[item]]
id = "x"
prompt = "p"
"""


@pytest.fixture
def any_model(project: Project) -> Project:
    project.plugin("any_model", PLUGIN, "any")
    index = {"_class_name": "Named", **{name: ["lib", "Part"] for name in ("one", "two")}}
    project.write("model/model_index.json", json.dumps(index))
    for size, name in enumerate(("one", "two"), 3):
        project.write(f"model/{name}/config.json", json.dumps({"size": size}))
        weights = {"weight": torch.eye(size), "bias": torch.zeros(size)}
        extra = {"mean": torch.tensor([2.5])} if name == "one" else {}
        save_file(weights | extra, project.folder / f"model/{name}/model.safetensors")
    project.write("any.toml", MANIFEST)
    return project


def made(project: Project) -> str:
    (output,) = (project.folder / "runs/any/outputs").glob("*.txt")
    return output.read_text()


def test_a_run(any_model: Project) -> None:
    """A bundle goes from stage to stage; a shell's config, buffers and dtype are known where it is not loaded."""
    outcome = any_model.runner("run", "any.toml")
    assert outcome.code == 0, outcome.stderr
    expected = {
        "a": "torch.bfloat16",  # the stage's dtype was cast to save_dtype, others were not
        "b": "torch.int64",
        "pipeline": "Named",
        "two": "torch.float16",  # that of the stage that loads it
        "text": "p",
        "one": 3,
        "mean": [2.5],
    }
    assert made(any_model) == repr(sorted(expected.items()))


def test_parameters_are_those_of_the_model(any_model: Project) -> None:
    any_model.write("any.toml", MANIFEST.replace('prompt = "p"', 'prompt = "p"\none = 0\ntow = 5'))
    outcome = any_model.invoke("validate", "any.toml")
    assert outcome.code == 3
    assert "any.toml:16:7: 'one': must be greater than or equal to 1" in outcome.stderr
    assert "unknown key 'tow'" in outcome.stderr
    assert "did you mean 'two'?" in outcome.stderr


def test_another_pipeline_on_the_same_weights(any_model: Project) -> None:
    def key(pipeline: str) -> str:
        outcome = any_model.invoke("plan", "any.toml", "--set", f"model.pipeline={pipeline}", "--json")
        return f"{outcome.code} {outcome.stderr}"

    assert key("Named") == "0 "
    assert key("Unknown").startswith(
        "8 any.toml:4:10: the stages of 'any' cannot use this model: only pipelines with a name"
    )
    assert "the name of a class" in key("not-a-name")


def test_a_stage_is_refused_without_its_model(any_model: Project) -> None:
    any_model.write("any.toml", MANIFEST.replace('[model]\nsource = "./model"\n', ""))
    outcome = any_model.invoke("validate", "any.toml")
    assert (outcome.code, outcome.stderr.count("needs a model: give a [model] source")) == (3, 2)
    any_model.write("any.toml", MANIFEST.replace("./model", "./models"))
    outcome = any_model.invoke("validate", "any.toml")
    assert outcome.code == 8
    assert "any.toml:4:10: there is no model folder" in outcome.stderr


def test_functions_that_fail_are_the_plugins_fault(any_model: Project) -> None:
    for old, new, words in (
        (
            '    return parts(model, "one")',
            "    return 1 / 0",
            "fails for a model of Named: ZeroDivisionError",
        ),
        ('    return parts(model, "one")', '    return ["one"]', 'not a Component: write Component("one"'),
        ("    fields = {", "    return 3\n    fields = {", "returned 3, and not a pydantic model"),
    ):
        any_model.plugin("any_model", PLUGIN.replace(old, new), "any")
        outcome = any_model.runner("validate", "any.toml")
        assert (outcome.code, words in outcome.stderr) == (4, True), outcome.stderr


def keys(project: Project) -> list[str]:
    with project.as_environment():
        found = resolve_models(bind(load(project.folder / "any.toml"), discover())).keys()
    assert found is not None
    return [keyed.key for keyed in found["x"]]


def rewrite(path: Path, name: str) -> None:
    from safetensors.torch import load_file

    tensors = {n: t.clone() for n, t in load_file(path).items()}
    tensors[name] += 1
    save_file(tensors, path)


def test_a_key_holds_what_the_stage_reads(any_model: Project) -> None:
    """Of a shell: config, buffers, and the dtype that another stage computes it in; not its weights."""
    before = keys(any_model)
    rewrite(any_model.folder / "model/two/model.safetensors", "bias")
    weights_of_two = keys(any_model)
    assert (weights_of_two[0] == before[0], weights_of_two[1] == before[1]) == (True, False)
    rewrite(any_model.folder / "model/one/model.safetensors", "mean")
    mean = keys(any_model)
    assert mean[1] != weights_of_two[1]
    any_model.write("any.toml", MANIFEST.replace('float16"\n[[item', 'float32"\n[[item'))
    assert keys(any_model)[0] != mean[0]


def test_it_is_shown_as_one_that_depends_on_the_model(any_model: Project) -> None:
    shown = any_model.invoke("plugins", "show", "any.first")
    assert "its parameters, and what it loads, depend on the model" in shown.stdout
    details = json.loads(any_model.invoke("plugins", "show", "any.first", "--json").stdout)
    assert (details["depends_on_model"], details["components"], details["parameters"]) == (True, [], [])
