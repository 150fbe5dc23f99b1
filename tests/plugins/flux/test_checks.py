"""What FLUX's parameters and configs say against each other: reported with the place, before a run starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from checkpoints import make_flux
from faults import config
from runner_flux import checks
from runner_flux.params import Decode, Diffuse, Encode

from runner.api import Facts

if TYPE_CHECKING:
    from project import Project

MANIFEST = """
version = 1
name = "checked"
[model]
source = "{source}"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 64
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[stage.with]
height = 64
width = 64
[[stage]]
name = "decode"
uses = "flux.decode"
"""


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("true_cfg_scale = 2.0", "m.toml:24:18: true_cfg_scale over 1 needs a negative_prompt"),
        ('negative_prompt = "dull"', "m.toml:24:19: negative_prompt changes nothing without true_cfg_scale"),
        ('negative_prompt_2 = "dull"', "m.toml:24:21: negative_prompt_2 changes nothing"),
        ('negative_prompt = "dull"\ntrue_cfg_scale = 2.0', ""),
        ('negative_prompt = ""\ntrue_cfg_scale = 2.0', ""),
        ('negative_prompt = ""', ""),
    ],
)
def test_parameters_that_contradict_each_other(project: Project, lines: str, words: str) -> None:
    text = MANIFEST.format(source="plugin:flux/demo") + f'[[item]]\nid = "a"\nprompt = "a"\n{lines}\n'
    project.write("m.toml", text)
    for command in ("validate", "plan"):
        outcome = project.invoke(command, "m.toml")
        assert outcome.code == (3 if words else 0), outcome
        assert words in outcome.stderr


def test_a_model_without_guidance_is_reported_of_and_one_for_filling_refused(project: Project) -> None:
    schnell = make_flux(project.folder / "schnell", dev=False)
    batch = '[batch]\nprompts = ["a", "b"]\n'
    text = MANIFEST.format(source="./schnell") + batch
    text = text.replace("height = 64", "guidance_scale = 3.5\nheight = 64")
    project.write("m.toml", text.replace("max_sequence_length = 64", "max_sequence_length = 512"))
    outcome = project.invoke("validate", "m.toml")
    assert outcome.code == 0, outcome
    assert outcome.stderr.count("warning: ") == 2  # not once an item
    assert "warning: m.toml:16:18: guidance_scale changes nothing" in outcome.stderr
    assert "warning: m.toml:11:23: max_sequence_length is 512" in outcome.stderr

    config("transformer/config.json", in_channels=384)(schnell)
    outcome = project.invoke("validate", "m.toml")
    assert outcome.code == 8
    assert "m.toml:4:10: the transformer takes 384 channels (in_channels), and text to image gives it 64" in (
        outcome.stderr
    )


def test_parts_of_different_models() -> None:
    configs = {"transformer": {"in_channels": 64, "joint_attention_dim": 4096, "pooled_projection_dim": 768}}
    encoders = {"text_encoder": {"hidden_size": 768}, "text_encoder_2": {"d_model": 2048}}
    upstream = dict.fromkeys(("prompt_embeds", "pooled_prompt_embeds"), encoders)
    found = list(checks.diffuse(Diffuse(), Facts(configs, {}, upstream)))
    assert [problem.component for problem in found] == ["transformer"]
    assert "takes text embeddings of 4096 numbers (joint_attention_dim), and text_encoder_2 makes 2048" in (
        found[0].message
    )
    facts = Facts({"vae": {"latent_channels": 4}}, {}, {"latents": {"vae": {"latent_channels": 16}}})
    assert len(list(checks.decode(Decode(), facts))) == 1
    assert list(checks.encode(Encode(prompt="a"), Facts())) == []
