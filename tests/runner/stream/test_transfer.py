"""Copies of weights to the simulated accelerator: when they have ended, and what waiting for them counts for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import streamed_programs as programs
from towers import make, stored_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation


def test_nothing_is_being_copied_when_blocks_are_closed(simulation: Simulation, tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    assert simulation.call(programs.idle_after_closing, str(folder), policy="late") == [True]


def test_the_devices_waits_count_once_they_are_over(simulation: Simulation) -> None:
    assert simulation.call(programs.stalled, 2) == pytest.approx([0.01, 0.0, 0.005, 0.0])


def test_blocks_that_stay_in_ram_are_read_once(simulation: Simulation, tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    assert simulation.call(programs.bytes_read, str(folder)) == stored_bytes(folder)
