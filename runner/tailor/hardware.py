"""The hardware that a manifest is made for, and the changes of its budgets for other hardware."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli

from runner.accelerator.discovery import device_named
from runner.accelerator.names import AUTO, CHOICES, is_accelerator, is_device
from runner.errors import BudgetError, UsageError
from runner.placements import ACCELERATOR_ONLY
from runner.plan.limits import ram_for_a_worker
from runner.tailor.changes import NO_OUTPUT, Change
from runner.units import MIB, format_size, in_quarters, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.machine.describe import Machine
    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path
    from runner.manifest.schema import Budget


@dataclass(frozen=True)
class Hardware:
    """A device and memory sizes as a budget has them; None: not given."""

    device: str | None = None
    vram: str | None = None
    ram: str | None = None

    def check(self) -> None:
        """Check the syntax of sizes and device.

        Raises:
            UsageError: a size has no unit, or the device has no valid name.

        """
        for name, size in (("vram", self.vram), ("ram", self.ram)):
            try:
                _ = size is None or parse_size(size)
            except ValueError as error:
                raise UsageError(f"--{name}: {error}") from None
        if not is_device(self.device or AUTO):
            raise UsageError(f"--device {self.device}: there is no such device; write {CHOICES}")

    @property
    def in_words(self) -> str:
        """``a CUDA card with 8 GiB, 30 GiB of RAM``."""
        device = f"a CUDA card with {_spaced(self.vram)}" if self.vram else "a CPU alone"
        return f"{device}, {_spaced(self.ram)} of RAM" if self.ram else device


def completed(given: Hardware, machine: Machine) -> tuple[Hardware, list[str]]:
    """The hardware that is given, completed by what the machine has; and notes about what was added.

    Raises:
        UsageError: the device is not in that machine, and its memory is not given.
        BudgetError: the machine leaves no RAM to a worker.

    """
    device, vram, ram = given.device or "auto", given.vram, given.ram
    notes = []
    if device == "cpu":
        if vram:
            notes.append(f"--vram {vram} is ignored: the device is the CPU")
        vram = None
    elif not vram:
        found = machine.accelerators
        card = found[0] if device == AUTO and found else device_named(device, found)
        if card is not None:
            vram = in_quarters(card.memory)
            notes.append(f'vram = "{vram}": {card.name} has {format_size(card.memory)}')
        elif device == "auto":
            device = "cpu"
            notes.append("for the CPU: this machine has no accelerator; --vram writes it for another machine")
        else:
            raise UsageError(f"--device {device}: this machine has none to take the size of; give --vram")
    if not ram:
        ram = _ram_of(machine)
        notes.append(f'ram = "{ram}": what this machine (or its container) leaves to a worker')
    return Hardware(device, vram, ram), notes


def _ram_of(machine: Machine) -> str:
    left = ram_for_a_worker(machine)
    if left < MIB:
        raise BudgetError(
            "this machine (or its container) leaves no RAM to a worker; give --ram for another one"
        )
    quarters = in_quarters(left)
    return quarters if parse_size(quarters) <= left else f"{left // MIB}MiB"


def budget_changes(manifest: Manifest, hardware: Hardware) -> list[Change]:
    """Changes of ``[budget]``, of stages' own budgets, and of placements that need an accelerator."""
    table, raw = manifest.table, tomli.loads(manifest.text)
    if hardware.device is None and hardware.vram and table.budget.device == "cpu":
        hardware = replace(hardware, device="auto")
    written = raw.get("budget", {})
    changes = list(_whole(written, table.budget, hardware))
    device = hardware.device or table.budget.device
    for n, stage in enumerate(table.stage):
        own = raw["stage"][n].get("budget", {})
        changes += _own(("stage", n, "budget"), own, stage.name, hardware)
        on_cpu = _device(own.get("device"), hardware.device) or device
        if on_cpu == "cpu" and stage.placement in ACCELERATOR_ONLY:
            path: Path = ("stage", n, "placement")
            changes.append(Change(path, stage.placement, "auto", NO_OUTPUT, stage.name))
    return changes


def _whole(written: dict[str, Any], budget: Budget, hardware: Hardware) -> Iterator[Change]:
    device = hardware.device or budget.device
    if device != budget.device:
        yield Change(("budget", "device"), budget.device, device)
    for name, size in (("vram", hardware.vram), ("ram", hardware.ram)):
        old = written.get(name)
        if name == "vram" and device == "cpu":
            if old:
                yield Change(("budget", name), old, None, "the CPU has no VRAM")
        elif size and (old is None or parse_size(old) != parse_size(size)):
            yield Change(("budget", name), old, size)


def _own(path: Path, own: dict[str, Any], stage: str, hardware: Hardware) -> Iterator[Change]:
    """Changes of a stage's own budget: it stays as it is if the hardware has as much."""
    device = _device(own.get("device"), hardware.device)
    if device != own.get("device"):
        yield Change((*path, "device"), own["device"], device, stage=stage)
    for name, size in (("vram", hardware.vram), ("ram", hardware.ram)):
        old = own.get(name)
        if old and name == "vram" and hardware.device == "cpu":
            yield Change((*path, name), old, None, "the CPU has no VRAM", stage)
        elif old and size and parse_size(old) > parse_size(size):
            yield Change((*path, name), old, size, stage=stage)


def _device(own: str | None, given: str | None) -> str | None:
    """A stage's own device, unless the given hardware is the CPU or another card."""
    if own is None or given is None:
        return own
    other_card = is_accelerator(given) and is_accelerator(own)
    return given if given == "cpu" or other_card else own


def _spaced(size: str | None) -> str:
    """``8GiB`` as ``8 GiB``."""
    return re.sub(r"(?<=\d)\s*(?=[A-Z])", " ", size or "")
