"""Hardware that is given, and what is taken from a machine where it is not."""

from __future__ import annotations

import pytest

from runner.accelerator.device import Device
from runner.errors import BudgetError, UsageError
from runner.machine.describe import Machine
from runner.plan.limits import SPARE
from runner.tailor.hardware import Hardware, completed

GIB = 1 << 30
CARDS = (Device("cuda", 0, "Card A", 12 * GIB - 100), Device("cuda", 1, "Card B", 8 * GIB))
MACHINE = Machine(8, 32 * GIB + SPARE, None, CARDS)


@pytest.mark.parametrize(
    ("given", "vram"),
    [(Hardware(), "11.75GiB"), (Hardware("cuda:1"), "8GiB"), (Hardware(vram="6GiB"), "6GiB")],
)
def test_sizes_that_are_not_given_are_the_machines(given: Hardware, vram: str) -> None:
    found, notes = completed(given, MACHINE)
    assert found == Hardware(given.device or "auto", vram, "32GiB")
    assert [note.partition(" =")[0] for note in notes] == (["ram"] if given.vram else ["vram", "ram"])


def test_without_an_accelerator_the_device_is_the_cpu() -> None:
    found, notes = completed(Hardware(ram="16GiB"), Machine(8, 32 * GIB))
    assert found == Hardware("cpu", None, "16GiB")
    assert "this machine has no accelerator" in notes[0]


def test_a_card_that_the_machine_does_not_have_needs_a_size() -> None:
    with pytest.raises(UsageError, match=r"--device cuda:2: .* give --vram"):
        completed(Hardware("cuda:2"), MACHINE)


def test_ram_is_in_quarters_of_a_gib_and_below_that_in_mib() -> None:
    assert completed(Hardware("cpu"), Machine(8, (200 << 20) + SPARE))[0].ram == "200MiB"
    with pytest.raises(BudgetError, match="leaves no RAM to a worker"):
        completed(Hardware("cpu"), Machine(8, SPARE))
