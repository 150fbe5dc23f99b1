"""Components that are swapped: the one that runs is on the device, and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import device_programs as programs
import pytest
from sim.forked import POLICIES

if TYPE_CHECKING:
    from sim.forked import Simulation


@pytest.mark.parametrize("policy", POLICIES)
def test_components_are_swapped_when_they_run(simulation: Simulation, policy: str) -> None:
    found = simulation.call(programs.swapped, policy=policy, seed=2)
    assert found["right"]
    assert found["violations"] == []
    assert found["devices"] == [["cpu", "cpu"], ["sim", "cpu"], ["cpu", "sim"], ["sim", "cpu"]]
    assert found["stays"], "one that runs again is not copied again"
    assert found["tied"], "tied weights are one"
    assert found["peak"] == found["largest"], "the others have left before one comes"
    assert found["counted"] == 3, "what a buffer has counted is kept"
