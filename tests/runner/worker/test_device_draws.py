"""Random numbers that a stage draws on the device: each item's own, in lockstep and after an interruption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import simulated_loops as loops
from towers import make

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation


@pytest.mark.parametrize(("device", "policy"), [("sim:0", "late"), ("sim:1", "eager"), ("sim:1", "late")])
def test_an_items_draws_do_not_depend_on_its_neighbours_or_on_interruptions(
    simulation: Simulation, tmp_path: Path, device: str, policy: str
) -> None:
    tower = make(tmp_path / "tower")
    found = simulation.call(loops.drawn, str(tower), str(tmp_path), device, policy=policy)
    assert found == loops.Drawn(together=True, resumed=True, distinct=True, steps=[2, 2, 1], violations=[])
