"""The checks of ``runner doctor``: devices, memory, disks, versions and plugins."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.accelerator.discovery import BUILDS, find, reasons, torch_built_for
from runner.accelerator.names import CUDA
from runner.machine import rates
from runner.machine.cgroup import MemoryGroup
from runner.machine.describe import LIBRARIES, OPTIONAL
from runner.plugins import discover
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.machine.describe import Machine

_GIB = 1 << 30
_LEAST_SHARED = 256 << 20  # a container has 64 MiB by default
_LEAST_FOR_MODELS = 10 * _GIB
_LEAST_FOR_RUNS = _GIB
_SLOW = 0.3e9  # bytes a second: below this it is a hard disk or a network


@dataclass(frozen=True)
class Check:
    """The result of one check; with advice it is a warning."""

    name: str
    message: str
    advice: str = ""
    broken: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    """More fields for JSON."""

    @property
    def status(self) -> str:
        return "broken" if self.broken else "warn" if self.advice else "ok"


def diagnose(machine: Machine, runs: Path, *, measure: bool) -> list[Check]:
    """All checks. ``runs`` is where run directories are kept; speeds are measured, or those kept earlier."""
    busy = measure and rates.is_busy()
    return [
        *([_load()] if busy else []),
        *_devices(machine, measure=measure, busy=busy),
        *_memory(machine),
        *_disks(runs, measure=measure, busy=busy),
        *_software(machine),
        *_plugins(),
    ]


def _load() -> Check:
    return Check(
        "load",
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: other programs run, so measured speeds are low",
        "measurements of an idle machine are kept; run doctor again when nothing else runs",
        facts={"load": os.getloadavg()[0]},
    )


def _devices(machine: Machine, *, measure: bool, busy: bool) -> Iterator[Check]:
    look = partial(rates.measure_device, busy=busy) if measure else rates.cached_device
    cores = machine.cores
    speed = look("cpu")
    message = f"{cores} cores, {platform.machine()}{_speed(speed, cores)}"
    yield Check("cpu", message, facts={"cores": cores, **_rates(speed, cores)})
    for device in machine.accelerators:
        speed = look(device.id)
        message = f"{device.id}, {device.name}, {format_size(device.memory)}{_speed(speed, 1)}"
        facts = {"device": device.id, "memory": device.memory, **_rates(speed, 1)}
        yield Check("accelerator", message, facts=facts)
    if not machine.accelerators:
        yield Check(
            "accelerator",
            f"none, or no driver for it: stages run on the CPU{_why_none()}",
            "fine for small models; for an NVIDIA card, install its driver (`nvidia-smi` shows it then)",
        )


def _why_none() -> str:
    return "".join(f"; {kind}: {reason}" for kind, reason in reasons().items())


def _speed(speed: rates.DeviceRates | None, cores: int) -> str:
    """``, computes float32 at 0.11 and bfloat16 at 0.02 TFLOPS``."""
    if speed is None:
        return ""
    computes = " and ".join(f"{d} at {speed.compute[d] * cores / 1e12:.3g}" for d in ("float32", "bfloat16"))
    bus = f", reached at {speed.bus / 1e9:.1f} GB/s" if speed.bus else ""
    return f", computes {computes} TFLOPS{bus}"


def _rates(speed: rates.DeviceRates | None, cores: int) -> dict[str, Any]:
    if speed is None:
        return {"operations_per_second": None, "bus_bytes_per_second": None}
    compute = {dtype: rate * cores for dtype, rate in speed.compute.items()}
    return {"operations_per_second": compute, "bus_bytes_per_second": speed.bus}


def _memory(machine: Machine) -> Iterator[Check]:
    limit = machine.container_limit
    around = f", of which this process may use {format_size(limit)}" if limit else ", no container limit"
    facts = {"total": machine.total_ram, "container_limit": limit, "usable": machine.usable_ram}
    yield Check("ram", format_size(machine.total_ram) + around, facts=facts)
    yield _ram_budget()
    shared = Path("/dev/shm")  # noqa: S108 - only read
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        advice = "code that passes tensors to other processes needs more; in Docker: --shm-size=1g"
        message = f"{format_size(size)} in {shared}"
        yield Check("shared memory", message, advice if size < _LEAST_SHARED else "", facts={"total": size})


def _ram_budget() -> Check:
    """How a worker's RAM budget is enforced. A control group is tried: the kernel may refuse it."""
    watchdog = "kept by a watchdog, which checks 20 times a second"
    if sys.platform != "linux":
        return Check("ram budget", watchdog, facts={"cgroup": False})
    if _limits_a_process():
        message = "a cgroup can be made for workers: the kernel can keep it"
        return Check("ram budget", message, facts={"cgroup": True})
    return Check(
        "ram budget",
        f"{watchdog}; no cgroup can be made here",
        "a worker may go over for a moment; for a limit that the kernel keeps, start runner with "
        "`systemd-run --user --scope runner run ...`, or give the container a cgroup tree that it may write",
        facts={"cgroup": False},
    )


def _limits_a_process() -> bool:
    group = MemoryGroup.make(_GIB)
    if group is None:
        return False
    try:
        waiting = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
        with subprocess.Popen(waiting, stdin=subprocess.PIPE) as process:
            return group.add(process.pid)
    finally:
        group.close()


def _disks(runs: Path, *, measure: bool, busy: bool) -> Iterator[Check]:
    from huggingface_hub.constants import HF_HUB_CACHE

    measured: dict[int, float | None] = {}
    for name, folder in (("models", Path(HF_HUB_CACHE)), ("runs", runs)):
        place = rates.nearest(folder)
        disk = place.stat().st_dev
        if disk not in measured:
            measured[disk] = rates.measure_disk(place, busy=busy) if measure else rates.cached_disk(place)
        yield _disk(name, folder, place, measured[disk], now=measure)


def _disk(name: str, folder: Path, place: Path, speed: float | None, *, now: bool) -> Check:
    """Free space and read speed; ``now`` if the speed was just measured, else it is from an earlier run."""
    free, writable = shutil.disk_usage(place).free, os.access(place, os.W_OK)
    advice = []
    if not writable and name == "models":
        advice.append("no model can be downloaded to it: set HF_HOME to a folder that you may write")
    elif not writable:
        advice.append("change to a folder that you may write, or name one with --runs-dir")
    if name == "models" and free < _LEAST_FOR_MODELS:
        advice.append("large models need tens of GiB: make room, or set HF_HOME to a larger disk")
    elif free < _LEAST_FOR_RUNS:
        advice.append("make room, or keep runs elsewhere with --runs-dir")
    if name == "models" and speed and speed < _SLOW:
        advice.append(
            "weights that do not fit into memory are read from here each step: set HF_HOME to a faster disk"
        )
    if speed:
        rate = f"{speed / 1e9:.2f} GB/s"
        read = f", reads {rate}" if now else f", read {rate} when last measured"
    else:
        read = ", its speed could not be measured" if now else ""
    facts = {"folder": str(folder), "free": free, "writable": writable, "read_bytes_per_second": speed}
    message = f"{folder}: {format_size(free)} free{read}{'' if writable else ', not writable'}"
    return Check(name, message, "; ".join(advice), facts=facts)


def _software(machine: Machine) -> Iterator[Check]:
    versions = {"python": platform.python_version()}
    absent, optional = [], []
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    for name, use in OPTIONAL.items():
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
            continue
        optional.append(f"{name} for {use}")
    message = ", ".join(f"{name} {version}" for name, version in versions.items())
    message += f" (without {', '.join(optional)})" if optional else ""
    advice = f"not installed: {', '.join(absent)}; what needs them will fail: pip install {' '.join(absent)}"
    yield Check("versions", message, advice if absent else "", facts={"versions": versions, "absent": absent})
    if "torch" in versions:
        yield _torch(machine)


def _torch(machine: Machine) -> Check:
    """What torch was built for, read from its files: importing it would take seconds and memory."""
    built = torch_built_for()
    targets = " and ".join(f"{BUILDS[kind]} {version}" for kind, version in built.items()) or "the CPU only"
    advice = "an accelerator cannot be used: install a build for it, see https://pytorch.org/get-started"
    unused = find(CUDA).unusable or (not built and any(d.kind == CUDA for d in machine.accelerators))
    return Check("torch", f"built for {targets}", advice if unused else "", facts={"built_for": built})


def _plugins() -> Iterator[Check]:
    plugins = discover()
    for plugin in plugins.loaded:
        stages = [stage.name for stage in plugin.stages]
        message = (
            f"{plugin.name} ({plugin.distribution} {plugin.version}): {', '.join(stages) or 'no stages'}"
        )
        yield Check("plugin", message, facts={"plugin": plugin.name, "stages": stages})
    for broken in plugins.broken:
        subject = f"stage '{broken.stages[0]}' of {broken.name}" if broken.stages else broken.name
        yield Check(
            "plugin",
            f"{subject} ({broken.distribution}) is set aside: {broken.reason}",
            f"fix or update it, or uninstall it: pip uninstall {broken.distribution}",
            broken=True,
            facts={"plugin": broken.name, "stages": list(broken.stages), "reason": broken.reason},
        )
    if not plugins.loaded and not plugins.broken:
        yield Check("plugin", "none is installed", "`pip install runner-flux` brings FLUX")
