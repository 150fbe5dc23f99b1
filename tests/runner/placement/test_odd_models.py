"""Unusual models on the simulated accelerator: each placement has the bits of the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import odd_models as models
import pytest
import torch
from odd_models import PLACED, Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation

POLICIES = ("late", "late-copies", "late-compute")
FULL, HALF, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
CHECKPOINTS = [
    *(Checkpoint(model, FULL, FULL) for model in models.MODELS),
    *(Checkpoint(model, FLOAT16, HALF, FULL) for model in ("Lists", "Tied", "Lending", "Normed")),
    Checkpoint("Kept", HALF, FLOAT16, FULL),
    Checkpoint("Lists", HALF, FULL, FULL),
]
REFUSED = {
    (
        "Counting",
        placement,
    ): "RuntimeError: code writes to an offloaded weight, and the change would be lost; "
    "use placement resident"
    for placement in PLACED
    if placement.startswith(("stream", "device-map", "sequential"))
} | {
    ("Lending", "group-offload"): "RuntimeError: Expected all tensors to be on the same device, but found at "
    "least two devices, sim:0 and cpu! (aten::mul)",
}
"""What some placements cannot do, and say so."""


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda c: f"{c.model}-{c.stored}-{c.dtype}")
def test_every_placement_of_an_unusual_model_has_the_bits_of_the_cpu(
    simulation: Simulation, tmp_path: Path, checkpoint: Checkpoint
) -> None:
    folder = models.make(tmp_path / "net", checkpoint)
    found = simulation.call(models.compare, str(folder), checkpoint, list(PLACED), POLICIES)
    assert found == {placement: REFUSED.get((checkpoint.model, placement), "") for placement in PLACED}
