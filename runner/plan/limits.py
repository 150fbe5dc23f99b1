"""The limits of a stage's memory, and the speeds of its device: from its budget and from the machine."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.accelerator.discovery import choose_device, device_named
from runner.accelerator.names import CUDA, is_accelerator
from runner.accelerator.overheads import Overheads, overheads_of
from runner.errors import BudgetError
from runner.machine.cpu import cpu_flags, speed_beside_float32
from runner.machine.describe import Machine
from runner.machine.rates import cached_device, cached_disk
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from runner.manifest.schema import Budget

SPARE = 400 << 20
"""RAM in bytes that no worker gets: the supervisor (90 MiB), and the fork server with its libraries."""
GUESS = "a guess: neither a run nor `runner doctor` has measured it here"
# estimates until `runner doctor` has measured this machine
DISK_SPEED = 1e9  # bytes a second, low for an SSD
BUS_SPEED = 12e9  # bytes a second from pinned RAM to a card, over eight lanes of PCIe 4
CORE_SPEED, CARD_SPEED = 7.5e10, 5e13  # operations a second in float32; high, so that groups are large enough


@dataclass(frozen=True)
class Limits:
    """Limits in bytes (None: no limit), and the speeds that times are estimated from."""

    device: str
    vram: int | None
    ram: int | None
    notes: tuple[str, ...] = ()
    """The reason for each limit that is not the budget's own."""
    cores: int = 8
    disk_read: float = DISK_SPEED
    """Bytes a second."""
    bus: float = BUS_SPEED
    """Bytes a second."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """Measured operations a second by dtype, of one core or of the card."""
    most: Mapping[str, int] = field(default_factory=dict)
    """Bytes of "VRAM" and "RAM" that the machine has for a worker, whatever the budget; where known."""
    basis: str = GUESS
    """Where the speeds come from."""
    flags: Collection[str] = ()
    """Flags of the CPU."""
    context: int | None = None
    """Bytes that an accelerator's context was measured to take; None if it was not."""

    @property
    def on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def overheads(self) -> Overheads:
        """Memory that the device's runtime takes besides tensors."""
        return overheads_of(self.device, self.context)

    def speed(self, dtype: str) -> float:
        """Operations a second of all cores, or of the card."""
        if not self.on_cpu:
            return self.measured.get(dtype, CARD_SPEED * (1 if dtype == "float32" else 2))
        float32 = self.measured.get("float32", CORE_SPEED)
        return self.measured.get(dtype, float32 * speed_beside_float32(dtype, self.flags)) * self.cores


def limits_of(budget: Budget, machine: Machine | None = None) -> Limits:
    """The limits for a stage on a machine, by default this one.

    Where the machine does not have the device, the budget alone counts.
    """
    machine = machine or Machine.here(with_accelerators=budget.device != "cpu")
    try:
        device = choose_device(budget.device, vram=budget.vram, found=machine.accelerators)
    except BudgetError:
        note = "planned for a card of that size: this machine has no such accelerator"
        return Limits(_elsewhere(budget), budget.vram, budget.ram, (note,))
    vram, notes, most = budget.vram, [], {}
    card = device_named(device, machine.accelerators)
    if card is not None:
        has = most["VRAM"] = card.memory
        if vram is None or vram > has:
            vram = has
            notes.append(f"the card has {format_size(has)} of VRAM")
    has = most["RAM"] = ram_for_a_worker(machine)
    ram = budget.ram
    if ram is None or ram > has:
        ram = has
        notes.append(f"this machine (or its container) leaves {format_size(has)} of RAM to a worker")
    vram = None if device == "cpu" else vram
    cores = budget.threads or machine.cores
    context = card.context if card else None
    return _at_its_speed(Limits(device, vram, ram, tuple(notes), cores, most=most, context=context))


def ram_for_a_worker(machine: Machine) -> int:
    """Bytes that a machine, or its container, leaves to a worker beside the supervisor."""
    return max(0, machine.usable_ram - SPARE)


def _at_its_speed(limits: Limits) -> Limits:
    """The limits with the measured speeds of this machine's device and of the disk of this folder."""
    rates = cached_device(limits.device)
    limits = replace(limits, disk_read=cached_disk(Path()) or DISK_SPEED, flags=cpu_flags())
    if rates is None:
        return limits
    basis = f"from doctor's measurement{' of a busy machine' if rates.busy else ''}"
    context = rates.context if limits.context is None else limits.context
    return replace(limits, bus=rates.bus or BUS_SPEED, measured=rates.compute, basis=basis, context=context)


def limits_alone(budget: Budget, machine: Machine | None = None) -> Limits:
    """The limits of a budget alone, for a plan for another machine.

    ``auto`` is an accelerator if the budget gives VRAM, else the CPU. The CPU is assumed to be as fast as
    that of ``machine``, by default this one.
    """
    if budget.device == "cpu" or (budget.device == "auto" and budget.vram is None):
        rates = cached_device("cpu")
        measured = rates.compute if rates else {}
        flags = cpu_flags() if machine is None else machine.cpu_flags
        return Limits("cpu", None, budget.ram, measured=measured, flags=flags)
    return Limits(_elsewhere(budget), budget.vram, budget.ram)


def _elsewhere(budget: Budget) -> str:
    """The device of a budget for another machine."""
    return budget.device if is_accelerator(budget.device) else CUDA
