"""Streaming to the simulated accelerator: the CPU's bits, no race, and faults of the engine that show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import streamed_programs as programs
import torch
from changed_imports import Change
from sim.forked import POLICIES
from streamed_programs import HIDDEN, Case
from towers import make

if TYPE_CHECKING:
    from pathlib import Path

    from sim.forked import Simulation

CASES = {
    "from disk": Case(),
    "in RAM": Case(in_ram=tuple(range(len(HIDDEN)))),
    "some in RAM, cast": Case(in_ram=(0, 2, 4), dtype=torch.bfloat16),
    "one call": Case(calls=1, steps=3),
    "blocks that lend their weights": Case(lending=True),
    "dropped": Case(closed=False, in_ram=(1,)),
    "pinned by torch": Case(closed=False, registers=False, in_ram=(1,)),
    "the second device": Case(device="sim:1", in_ram=(1, 3)),
}
TRANSFER, BUFFER = "runner.stream.transfer", "runner.stream.double_buffer"
BLOCKS, PINNED = "runner.stream.blocks", "runner.accelerator.backends.pinned"
RECORD_ARRIVAL = "            self._arrived.record(self._stream)\n"
AWAIT = "        slot.transfer.await_arrival()\n"
BIND = "        with torch.no_grad():\n            block.bind(slot.transfer.memory, self._cast)\n"
SABOTAGES = {
    "computing does not wait for the copy": [Change(TRANSFER, "computing.wait_event(self._arrived)", "pass")],
    "the copy does not wait for computing": [
        Change(TRANSFER, "self._stream.wait_event(self._computed)", "pass")
    ],
    "the end of computing is not marked": [Change(BUFFER, "slot.transfer.computed()", "pass")],
    "it is marked when computing begins": [
        Change(BUFFER, "            slot.transfer.computed()\n", ""),
        Change(BUFFER, BIND, BIND + "        slot.transfer.computed()\n"),
    ],
    "the first copy waits for nothing": [
        Change(TRANSFER, "        self.computed()\n        self._stalls", "        self._stalls")
    ],
    "the copy's end is marked before it": [
        Change(TRANSFER, RECORD_ARRIVAL, ""),
        Change(
            TRANSFER,
            "            self._stream.wait_event(self._computed)\n",
            RECORD_ARRIVAL + "            self._stream.wait_event(self._computed)\n",
        ),
    ],
    "the copy's end is not marked": [Change(TRANSFER, RECORD_ARRIVAL, "")],
    "staging memory is written while it is copied": [Change(TRANSFER, "self._arrived.synchronize()", "pass")],
    "weights are cast before they have arrived": [
        Change(BUFFER, AWAIT, ""),
        Change(BUFFER, BIND, BIND + AWAIT),
    ],
    "the slot in use is filled": [
        Change(BUFFER, "            self._fill(other, guess)", "            self._fill(slot, guess)")
    ],
    "outputs stay in the slot": [
        Change(BUFFER, "return output.clone() if self._is_in_buffer(output) else output", "return output")
    ],
    "the end of a block is not copied": [
        Change(
            TRANSFER,
            "self.memory[: block.size].copy_(source[: block.size]",
            "self.memory[: block.size - 64].copy_(source[: block.size - 64]",
        )
    ],
    "slots are recycled while they are filled": [
        Change(TRANSFER, "        self.memory.record_stream(stream)\n", "")
    ],
    "pinned memory is released while it is copied": [
        Change(PINNED, "        synchronize()\n", "        pass\n")
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("streamed") / "tower", hidden=HIDDEN)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_streamed_weights_give_the_bits_of_the_cpu(
    simulation: Simulation, folder: Path, name: str, policy: str
) -> None:
    found = simulation.call(programs.stream, str(folder), CASES[name], policy=policy, seed=5)
    touched = (CASES[name].device == "sim:0", CASES[name].device == "sim:1")
    assert found == programs.Streamed(right=True, violations=[], touched=touched)


@pytest.mark.parametrize("policy", ["late", "late-copies", "late-compute"])
def test_calls_may_compute_in_streams_of_their_own(simulation: Simulation, folder: Path, policy: str) -> None:
    found = simulation.call(programs.own_streams, str(folder), policy=policy)
    assert found == programs.OwnStreams(right=[True] * 4, kept=[True] * 5, violations=[])


@pytest.mark.parametrize("name", SABOTAGES)
def test_a_sabotaged_engine_is_caught(simulation: Simulation, folder: Path, name: str) -> None:
    """By wrong bits, a violation or an error, in one case at least, under one of the policies."""
    policies = ("late", "late-copies", "late-compute")
    arguments = (str(folder), list(CASES.values()), policies, SABOTAGES[name])
    assert simulation.call(programs.caught, *arguments) is not None


def test_the_sabotaged_lines_are_what_is_caught(simulation: Simulation, folder: Path) -> None:
    policies = ("late", "late-copies", "late-compute")
    assert simulation.call(programs.caught, str(folder), list(CASES.values()), policies, []) is None
