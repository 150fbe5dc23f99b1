"""The machine and the software that a run is made on, as its log records them."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.machine.capacity import Machine
from runner.machine.versions import installed_versions

if TYPE_CHECKING:
    from collections.abc import Iterable


def describe_machine(*, with_accelerators: bool) -> dict[str, Any]:
    """``system``, ``cpu``, ``cores``, bytes of ``ram``, and ``accelerators``: their driver takes its time."""
    machine = Machine.here(with_accelerators=with_accelerators)
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": machine.cores,
        "ram": machine.usable_ram,
        "accelerators": [vars(device) for device in machine.accelerators],
    }


def installed_with(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of the libraries, and of these plugins' distributions."""
    found: dict[str, str] = {}
    for distribution in distributions:
        found |= installed_versions(distribution)
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
