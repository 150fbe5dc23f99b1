"""A manifest whose VAE comes from elsewhere, and what its runs started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Outcome

MANIFEST = """
version = 1
name = "parts"
[model]
source = "plugin:flux/demo"
[model.components]
vae = "./my-vae"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[stage.with]
steps = 1
height = 32
width = 32
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
id = "circle"
prompt = "a red circle"
"""
WITHOUT = MANIFEST.replace('[model.components]\nvae = "./my-vae"\n', "")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def started(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome
    return [str(event["stage"]) for event in outcome.of("stage_started")]
