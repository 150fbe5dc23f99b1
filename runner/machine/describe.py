"""The machine and the installed software: as plans use them, and as the log of a run records them."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from runner.accelerator.discovery import accelerators
from runner.machine.cgroup import container_limit
from runner.machine.cpu import core_count, cpu_flags
from runner.machine.ram import total_ram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.accelerator.device import Device

LIBRARIES = ("stage-runner", "torch", "diffusers", "transformers", "safetensors", "numpy")
"""Distributions whose version can change the low bits of a result: recorded with it, part of no key."""
OPTIONAL = {
    "peft": "[[lora]]",
    "gguf": "GGUF files",
    "torchao": "int8 and fp8 weights",
    "bitsandbytes": "NF4, FP4 and LLM.int8 weights",
}
"""The same of distributions that extras bring, with what in a manifest needs each."""


@dataclass(frozen=True)
class Machine:
    """The hardware that a plan depends on."""

    cores: int
    total_ram: int
    """Bytes of physical memory."""
    container_limit: int | None = None
    """Bytes that the container may use; None without a limit."""
    accelerators: tuple[Device, ...] = ()
    cpu_flags: frozenset[str] = frozenset()

    @classmethod
    def here(cls, *, with_accelerators: bool = True) -> Self:
        """Describe this machine. Listing accelerators takes their driver a second; they can be left out."""
        found = accelerators() if with_accelerators else ()
        return cls(core_count(), total_ram(), container_limit(), found, cpu_flags())

    @property
    def usable_ram(self) -> int:
        """Bytes that a plan may count on: physical memory, or the container's limit where that is less."""
        return min(self.total_ram, self.container_limit or self.total_ram)


def describe_machine(*, with_accelerators: bool) -> dict[str, Any]:
    """The machine as JSON: system, CPU, cores, bytes of RAM, accelerators.

    ``with_accelerators=False`` leaves their list empty and does not start their driver.
    """
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


def installed_versions(plugin: str) -> dict[str, str]:
    """Versions of Python, of the installed libraries, and of the plugin's distribution."""
    found = versions(dict.fromkeys((*LIBRARIES, *OPTIONAL, plugin)))
    installed = {name: version for name, version in found.items() if version is not None}
    return {"python": platform.python_version(), **installed}


def versions(distributions: Iterable[str]) -> dict[str, str | None]:
    """The versions of distributions; None for one that is not installed."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()
