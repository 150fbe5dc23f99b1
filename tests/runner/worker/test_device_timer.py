"""The time that the device computes an item is charged to that item, whoever waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import device_programs as programs
import pytest

if TYPE_CHECKING:
    from sim.forked import Simulation


@pytest.mark.parametrize("policy", ["late-compute", "late"])
def test_who_waits_for_the_device_is_not_charged_with_the_work_of_others(
    simulation: Simulation, policy: str
) -> None:
    found = simulation.call(programs.timed, policy=policy)
    assert found["light"] < 0.8 * found["waited"]
    assert found["light"] < found["heavy"]
    assert found["runs"]
    assert not found["ended"][1]
