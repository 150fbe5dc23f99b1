"""The hardware that a manifest is for, and what that changes in its budgets."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli

from runner.errors import BudgetError, UsageError
from runner.plan.limits import ram_for_a_worker
from runner.protocol import ACCELERATOR_ONLY
from runner.tailor.changes import NO_PICTURE, Change
from runner.units import format_size, in_quarters, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.machine.capacity import Machine
    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path
    from runner.manifest.schema import Budget


MIB = 1 << 20


@dataclass(frozen=True)
class Hardware:
    """A device and sizes, as a budget writes them; None is not said."""

    device: str | None = None
    vram: str | None = None
    ram: str | None = None

    def check(self) -> None:
        """Refuse what no budget may say.

        Raises:
            UsageError: a size has no unit, or the device is none.

        """
        for name, size in (("vram", self.vram), ("ram", self.ram)):
            try:
                _ = size is None or parse_size(size)
            except ValueError as error:
                raise UsageError(f"--{name}: {error}") from None
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device or "auto"):
            raise UsageError(
                f"--device {self.device}: there is no such device; write auto, cpu, cuda or cuda:N"
            )

    @property
    def in_words(self) -> str:
        """``a CUDA card with 8 GiB, 30 GiB of RAM``."""
        device = f"a CUDA card with {_spaced(self.vram)}" if self.vram else "a CPU alone"
        return f"{device}, {_spaced(self.ram)} of RAM" if self.ram else device


def completed(given: Hardware, machine: Machine) -> tuple[Hardware, list[str]]:
    """The hardware that is given, completed by what the machine has; and notes about what was added.

    Raises:
        UsageError: the device is not here, so that its size must be given.
        BudgetError: this machine has no RAM left for a worker.

    """
    device, vram, ram = given.device or "auto", given.vram, given.ram
    notes = []
    if device == "cpu":
        if vram:
            notes.append(f"--vram {vram} is left out: the device is the CPU")
        vram = None
    elif not vram:
        number, found = int(device.partition(":")[2] or 0), machine.accelerators
        if number < len(found):
            card = found[number]
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
    """What the hardware changes in ``[budget]``, in stages' own budgets, and in placements for a card."""
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
            changes.append(Change(path, stage.placement, "auto", NO_PICTURE, stage.name))
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
    """A stage's own budget is the user's choice as long as the hardware has as much."""
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
    """A stage's own device, where the hardware given has no other."""
    if own is None or given is None:
        return own
    other_card = given.startswith("cuda") and own.startswith("cuda")
    return given if given == "cpu" or other_card else own


def _spaced(size: str | None) -> str:
    """``8 GiB`` of ``8GiB``."""
    return re.sub(r"(?<=\d)\s*(?=[A-Z])", " ", size or "")
