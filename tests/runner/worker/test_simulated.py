"""Whole pipelines on the simulated accelerator: each placement, under each policy, with the CPU's pixels."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import simulated_runs as runs
from sim.forked import POLICIES

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation

PLACEMENTS = (
    "resident",
    "stream",
    "device-map",
    "model-offload",
    "sequential-offload",
    "group-offload",
)
MIB = 1 << 20
MANIFEST = """
version = 1
name = "sim"
model = {{ source = "{source}" }}
budget = {{ device = "cpu", threads = 1 }}
stage = [
    {{ name = "encode", uses = "flux.encode", dtype = "{dtype}", with = {{ max_sequence_length = 32 }} }},
    {{ name = "diffuse", uses = "flux.diffuse", dtype = "{dtype}", with = {{ steps = 2, height = 64, width = 64 }} }},
    {{ name = "decode", uses = "flux.decode", dtype = "{dtype}" }},
]
item = [
    {{ id = "a", prompt = "a red circle on a white background", seed = 1 }},
    {{ id = "b", prompt = "a blue star", seed = 2, steps = 3, height = 96 }},
    {{ id = "c", prompt = "a green heart", seed = 3 }},
]
"""


LORAS = """
lora = [{{ source = "./style.safetensors" }}, {{ source = "./anna.safetensors", weight = 0.5 }}]
"""


@pytest.fixture(scope="module", params=["demo", "published", "adapted"])
def manifest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest for the plugin's own model, or for a checkpoint in the layout of FLUX.1; or that, adapted."""
    folder = tmp_path_factory.mktemp(request.param)
    source, dtype = "plugin:flux/demo", "float32"
    text = MANIFEST
    if request.param != "demo":
        from checkpoints import make_flux

        make_flux(folder / "model")
        source, dtype = "./model", "bfloat16"
    if request.param == "adapted":
        from lora_files import FLUX, TEXT, write_kohya_flux, write_lora

        write_lora(
            folder / "style.safetensors", folder / "model", {"transformer": FLUX, "text_encoder": TEXT}
        )
        write_kohya_flux(folder / "anna.safetensors", folder / "model")
        text = MANIFEST.replace("seed = 3 }", "seed = 3, lora_weights = {{ style = -0.5 }} }") + LORAS
    path = folder / "sim.toml"
    path.write_text(text.format(source=source, dtype=dtype))
    return path


@pytest.mark.parametrize("policy", POLICIES)
def test_every_placement_has_the_pixels_of_the_cpu(
    simulation: Simulation, manifest: Path, policy: str
) -> None:
    os.environ["RUNNER_CACHE"] = str(manifest.parent / "cache")
    folder = manifest.parent / policy
    settings = {"cpu": [], **{placement: on_device(placement) for placement in PLACEMENTS}}
    found = simulation.call(
        runs.run_each, str(manifest), str(folder), settings, policy, RUNNER_ACCELERATOR="sim"
    )
    expected = found.pop("cpu").pixels
    assert sorted(expected) == ["a", "b", "c"]
    for ran in found.values():
        assert (ran.errors, ran.violations) == ([], [])
        assert ran.pixels == expected
        for predicted, reserved in zip(ran.predicted, ran.reserved, strict=True):
            assert 0 < reserved <= predicted


def on_device(placement: str, device: str = "sim") -> list[str]:
    placements = [f"stage.{stage}.placement={placement}" for stage in ("encode", "diffuse", "decode")]
    return [f"budget.device={device}", *placements]
