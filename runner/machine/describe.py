"""The machine and the installed software: as plans use them, and as the log of a run records them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.machine.cpu import core_count, cpu_flags
from runner.machine.devices import Accelerator, accelerators
from runner.machine.ram import usable_ram

if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARIES = ("stage-runner", "torch", "diffusers", "transformers", "safetensors", "numpy")
"""Distributions whose version can change the low bits of a result: recorded with it, part of no key."""


@dataclass(frozen=True)
class Machine:
    """The hardware that a plan depends on."""

    cores: int
    ram: int
    """Bytes that a process may use."""
    accelerators: tuple[Accelerator, ...] = ()
    cpu_flags: frozenset[str] = frozenset()

    @classmethod
    def here(cls) -> Machine:
        """Read this machine; the first call may take a second, for it starts the accelerators' driver."""
        return cls(core_count(), usable_ram(), accelerators(), cpu_flags())


def describe_machine(*, with_accelerators: bool) -> dict[str, Any]:
    """The machine as JSON: system, CPU, cores, bytes of RAM, accelerators.

    ``with_accelerators=False`` leaves their list empty and does not start their driver.
    """
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": core_count(),
        "ram": usable_ram(),
        "accelerators": [vars(device) for device in accelerators()] if with_accelerators else [],
    }


def installed_with(distributions: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of the libraries, and of these plugins' distributions."""
    found: dict[str, str] = {}
    for distribution in distributions:
        found |= installed_versions(distribution)
    return found


def installed_versions(plugin: str) -> dict[str, str]:
    """Versions of Python, of the installed libraries, and of the plugin's distribution."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*LIBRARIES, plugin)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
