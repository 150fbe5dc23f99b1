"""What a stage may take: its budget, and what the machine has, where the device is one of this machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import BudgetError
from runner.manifest.units import format_size
from runner.memory.devices import accelerators, choose_device
from runner.memory.machine import usable_ram
from runner.memory.meter import core_count
from runner.memory.rates import cached_device, cached_disk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.manifest.schema import Budget

SPARE = 400 << 20
"""Bytes beside the worker: the supervisor (90 MiB) and the fork server, which has imported the libraries."""
# until `runner doctor` has measured this machine's
FROM_DISK = 1e9  # bytes a second, rather low for an SSD
OVER_THE_BUS = 12e9  # likewise: pinned RAM to a card over eight lanes of PCIe 4
OF_A_CORE, OF_A_CARD = 1.5e11, 1e14  # operations in half precision; rather high: then groups are large enough


@dataclass(frozen=True)
class Limits:
    """Bytes that a worker may hold; None is no limit. ``notes`` say where they are not the budget's own."""

    device: str
    vram: int | None
    ram: int | None
    notes: tuple[str, ...] = ()
    cores: int = 8
    disk_read: float = FROM_DISK
    """Bytes a second, as ``bus`` is."""
    bus: float = OVER_THE_BUS
    measured: Mapping[str, float] = field(default_factory=dict)
    """Operations a second by dtype, of a core or of the card, where they were measured."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    def speed(self, dtype: str) -> float:
        """Operations a second, of all cores or of the card."""
        half = OF_A_CORE if self.on_cpu else OF_A_CARD
        one = self.measured.get(dtype, half / 2 if dtype == "float32" else half)
        return one * self.cores if self.on_cpu else one


def limits_of(budget: Budget) -> Limits:
    """The limits for a stage; its device need not be here: then the budget alone counts."""
    try:
        device = choose_device(budget)
    except BudgetError:
        note = "planned for a card of that size: this machine has no such accelerator"
        return Limits("cuda", budget.vram, budget.ram, (note,))
    vram, notes = budget.vram, []
    if device != "cpu":
        has = accelerators()[int(device.partition(":")[2])].memory
        if vram is None or vram > has:
            vram = has
            notes.append(f"the card has {format_size(has)} of VRAM")
    has = usable_ram() - SPARE
    ram = budget.ram
    if ram is None or ram > has:
        ram = has
        notes.append(f"this machine (or its container) leaves {format_size(has)} of RAM to a worker")
    rates = cached_device(device)
    return Limits(
        device,
        None if device == "cpu" else vram,
        ram,
        tuple(notes),
        budget.threads or core_count(),
        cached_disk(Path()) or FROM_DISK,
        (rates and rates.bus) or OVER_THE_BUS,
        rates.compute if rates else {},
    )


def limits_alone(budget: Budget) -> Limits:
    """The limits of a budget whatever this machine has, for a plan for another one.

    ``auto`` is an accelerator where there is a VRAM budget, else the CPU.
    """
    if budget.device == "cpu" or (budget.device == "auto" and budget.vram is None):
        return Limits("cpu", None, budget.ram)
    return Limits("cuda", budget.vram, budget.ram)
