"""A manifest whose VAE comes from elsewhere, and what its runs started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from short_flux import short_flux

if TYPE_CHECKING:
    from project import Outcome

WITHOUT = short_flux("parts", "plugin:flux/demo", items='[[item]]\nid = "circle"\nprompt = "a red circle"\n')
MANIFEST = WITHOUT.replace("[budget]", '[model.components]\nvae = "./my-vae"\n[budget]')
WEIGHTS = "diffusion_pytorch_model.safetensors"


def started(outcome: Outcome) -> list[str]:
    assert outcome.code == 0, outcome
    return [str(event["stage"]) for event in outcome.of("stage_started")]
