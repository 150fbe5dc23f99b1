"""The classes that a model's files name, held against those that the stages load: exit 8, before anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import DEMO
from faults import config, demo, scaled, weights

from runner.api import Component
from runner.model.checks.classes import class_problems
from runner.model.shapes import ComponentShapes

if TYPE_CHECKING:
    from faults import Fault
    from project import Project

MANIFEST = """
version = 1
name = "named"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
prompts = ["a"]
"""
INDEX, SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
REFUSED: dict[str, tuple[Fault, str]] = {
    "Heun": (config(SCHEDULER, _class_name="FlowMatchHeunDiscreteScheduler"), "the stage loads FlowMatchEuler"),
    "DPM++": (config(SCHEDULER, _class_name="DPMSolverMultistepScheduler"), "is of class DPMSolverMultistep"),
    "a transformer": (config("transformer/config.json", _class_name="SD3Transformer2DModel"), "SD3Transformer"),
    "a VAE": (config("vae/config.json", _class_name="AutoencoderTiny"), "'vae' is of class AutoencoderTiny"),
    "a projection": (
        config("text_encoder/config.json", architectures=["CLIPTextModelWithProjection"]),
        "'text_encoder' is of class CLIPTextModelWithProjection, by its config.json",
    ),
    "another T5": (config("text_encoder_2/config.json", architectures=["UMT5EncoderModel"]), "UMT5EncoderModel"),
    "a tokenizer": (
        config("tokenizer/tokenizer_config.json", tokenizer_class="BertTokenizer"),
        "'tokenizer' is of class BertTokenizer, by its tokenizer_config.json",
    ),
    "an entry of the index": (
        config(INDEX, text_encoder=["transformers", "CLIPTextModelWithProjection"]),
        "by its entry in model_index.json, and the stage loads CLIPTextModel",
    ),
    "Fill": (config(INDEX, _class_name="FluxFillPipeline"), "and flux.diffuse is made for FluxPipeline"),
    "SD3": (config(INDEX, _class_name="StableDiffusion3Pipeline"), "and flux.encode is made for FluxPipeline"),
    "bitsandbytes": (
        config("transformer/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "the files are quantised (bitsandbytes)",
    ),
    "scaled fp8": (weights("transformer", scaled), "fp8 with scales is read from single files: name the file in [model.components]"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_class_than_the_stage_loads(project: Project, case: str) -> None:
    fault, words = REFUSED[case]
    demo(project.folder / "model", fault)
    project.write("named.toml", MANIFEST)
    outcome = project.invoke("validate", "named.toml")
    assert outcome.code == 8, outcome
    assert words in outcome.stderr, outcome
    assert "named.toml:4:10" in outcome.stderr
    assert project.invoke("plan", "named.toml").code == 8
    assert project.invoke("run", "named.toml").code == 8
    assert not (project.folder / "runs").exists()


def test_all_that_is_wrong_is_said_at_once(project: Project) -> None:
    demo(
        project.folder / "model",
        config(SCHEDULER, _class_name="FlowMatchHeunDiscreteScheduler"),
        config("vae/config.json", _class_name="AutoencoderTiny"),
    )
    project.write("named.toml", MANIFEST + '[[item]]\nprompt = "b"\ntrue_cfg_scale = 3.0\n')
    outcome = project.invoke("validate", "named.toml")
    assert outcome.code == 3, outcome
    assert outcome.stderr.count("named.toml:4:10: component") == 2
    assert "named.toml:20:18: true_cfg_scale over 1 needs a negative_prompt" in outcome.stderr


@pytest.mark.parametrize(
    ("cls", "named", "accepts", "right"),
    [
        ("transformers:T5EncoderModel", "T5ForConditionalGeneration", (), True),
        ("transformers:T5EncoderModel", "T5WithLMHeadModel", (), True),
        ("transformers:CLIPTextModel", "CLIPModel", (), True),
        ("transformers:CLIPTextModelWithProjection", "CLIPTextModel", (), False),
        ("transformers:LlamaModel", "LlamaForCausalLM", (), True),
        ("transformers:AutoModel", "LlamaForCausalLM", (), True),
        ("diffusers:UNet2DConditionModel", "UNet2DModel", (), False),
        ("diffusers:AutoencoderKL", "AutoencoderTiny", (), False),
        ("diffusers:AutoencoderKL", "AutoencoderTiny", ("AutoencoderTiny",), True),
        ("diffusers:AutoencoderKL", "AutoencoderTiny", ("*",), True),
        ("mine.models:Vae", "AutoencoderKL", (), True),
    ],
)
def test_classes_that_go_together(cls: str, named: str, accepts: tuple[str, ...], right: bool) -> None:
    shapes = ComponentShapes(Component("net", cls, accepts=accepts), config={"_class_name": named})
    assert bool(list(class_problems(shapes, {}))) != right


@pytest.mark.parametrize(
    "named", ["T5Tokenizer", "T5TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]
)
def test_tokenizers_have_several_names(named: str) -> None:
    configs = {"tokenizer_config.json": {"tokenizer_class": named}}
    component = Component("tokenizer_2", "transformers:T5TokenizerFast")
    index = {"tokenizer_2": ["transformers", "T5TokenizerFast"]}
    assert list(class_problems(ComponentShapes(component, other_configs=configs), index)) == []


def test_the_demo_is_what_it_says(project: Project) -> None:
    project.write("named.toml", MANIFEST.replace("./model", str(DEMO)))
    outcome = project.invoke("validate", "named.toml")
    assert outcome.code == 0, outcome
