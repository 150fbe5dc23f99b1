"""Quantised weights and single files: each placement has the bits of diffusers, and moves quantised bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import weight_forms as forms
from bitsandbytes_weights import FORMS as BITSANDBYTES
from weight_forms import BLOCKS, GGML

from runner.placements import ComponentPlacement

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation

OTHER = ("fp8 scaled", "not aligned", "int8", "fp8")
PLACED = {
    "resident": ComponentPlacement("resident"),
    "stream": ComponentPlacement("stream", dict.fromkeys(BLOCKS, "disk")),
    "device-map": ComponentPlacement("device-map", dict.fromkeys(BLOCKS, "disk")),
}


@pytest.mark.parametrize("form", [*GGML, *OTHER, *BITSANDBYTES])
def test_each_form_has_the_bits_of_diffusers(tmp_path: Path, form: str) -> None:
    folder = forms.make(tmp_path, form)
    model = forms.theirs(folder, form)
    expected = [forms.call(model, number) for number in range(forms.CALLS)]
    for placement in PLACED.values():
        results, loader = forms.made(folder, placement)
        for result, other in zip(results, expected, strict=True):
            assert torch.equal(result, other)
        if placement.placement == "stream":
            shapes = forms.opened(folder).shapes
            stored = sum(shapes.stored_of(name) for block in shapes.blocks.values() for name in block)
            assert stored <= loader.stream.bytes_read <= stored * 4 / 3 + 100_000  # and what is prefetched


@pytest.mark.parametrize("form", ["Q8_0", "Q4_K", *OTHER, "nf4 double", "LLM.int8"])
def test_each_form_on_an_accelerator(simulation: Simulation, tmp_path: Path, form: str) -> None:
    names = (
        "resident",
        "stream disk",
        "stream cpu",
        "device-map disk",
        "model-offload",
        "sequential-offload",
    )
    found = simulation.call(forms.compare, str(forms.make(tmp_path, form)), form, names, ("late",))
    assert found == dict.fromkeys(names, "")
