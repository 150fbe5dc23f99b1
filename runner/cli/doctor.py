"""``runner doctor``: what this machine has for runner, and what to do about what it has not."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json, say
from runner.errors import ExitCode
from runner.machine import rates
from runner.machine.cgroup import MemoryGroup, container_limit
from runner.machine.cpu import core_count
from runner.machine.describe import LIBRARIES
from runner.machine.devices import accelerators
from runner.machine.ram import total_ram, usable_ram
from runner.plugins import discover
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

_GIB = 1 << 30
_LEAST_SHARED = 256 << 20  # a container has 64 MiB, if nobody asked for more
_LEAST_FOR_MODELS = 10 * _GIB
_LEAST_FOR_RUNS = _GIB
_SLOW = 0.3e9  # bytes a second: below this it is a hard disk or a network
_STYLES = {"ok": "green", "warn": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. It is a warning if there is something to do about it."""

    name: str
    told: str
    advice: str = ""
    broken: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return "broken" if self.broken else "warn" if self.advice else "ok"


def doctor(*, as_json: bool, measure: bool, runs: Path) -> int:
    """Look at everything and tell; exit code 4 if a plugin is broken, else 0."""
    if measure and not as_json:
        say("measuring disks and devices, up to 10 s each (--no-measure leaves it out) ...")
    busy = measure and rates.is_busy()
    machine = [*_devices(measure=measure, busy=busy), *_memory(), *_disks(runs, measure=measure, busy=busy)]
    checks = [*([_load()] if busy else []), *machine, *_software(), *_plugins()]
    code = ExitCode.PLUGIN if any(check.broken for check in checks) else ExitCode.DONE
    if as_json:
        print_json({"ok": code == ExitCode.DONE, "exit_code": int(code), "checks": _as_dicts(checks)})
    else:
        _show(checks)
    return code


def _as_dicts(checks: list[Check]) -> list[dict[str, Any]]:
    return [
        {"name": c.name, "status": c.status, "told": c.told, "advice": c.advice, **c.facts} for c in checks
    ]


def _show(checks: list[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        table.add_row(Text(check.status, _STYLES[check.status]), check.name, Text(check.told))
        if check.advice:
            table.add_row("", "", Text(f"> {check.advice}"))
    shown = console()
    shown.print(table)
    shown.print(f"\n{_summary(checks)}")


def _summary(checks: list[Check]) -> str:
    found = []
    for status, one, many in (("broken", "broken plugin", "broken plugins"), ("warn", "warning", "warnings")):
        if number := sum(check.status == status for check in checks):
            found.append(f"{number} {one if number == 1 else many}")
    return ", ".join(found) or "all is well"


def _load() -> Check:
    return Check(
        "load",
        f"{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: others compute too, so speeds come out low",
        "what was measured on a calm machine is kept; run doctor again when nothing else runs",
        facts={"load": os.getloadavg()[0]},
    )


def _devices(*, measure: bool, busy: bool) -> Iterator[Check]:
    look = partial(rates.measure_device, busy=busy) if measure else rates.cached_device
    cores = core_count()
    speed = look("cpu")
    told = f"{cores} cores, {platform.machine()}{_pace(speed, cores)}"
    yield Check("cpu", told, facts={"cores": cores, **_rates(speed, cores)})
    found = accelerators()
    for n, device in enumerate(found):
        speed = look(f"cuda:{n}")
        told = f"cuda:{n}, {device.name}, {format_size(device.memory)}{_pace(speed, 1)}"
        facts = {"device": f"cuda:{n}", "memory": device.memory, **_rates(speed, 1)}
        yield Check("accelerator", told, facts=facts)
    if not found:
        yield Check(
            "accelerator",
            "none, or no driver for it: stages run on the CPU",
            "fine for small models; for an NVIDIA card, install its driver (`nvidia-smi` shows it then)",
        )


def _pace(speed: rates.DeviceRates | None, cores: int) -> str:
    """``, computes float32 at 0.11 and bfloat16 at 0.02 TFLOPS``."""
    if speed is None:
        return ""
    told = " and ".join(f"{d} at {speed.compute[d] * cores / 1e12:.3g}" for d in ("float32", "bfloat16"))
    bus = f", reached at {speed.bus / 1e9:.1f} GB/s" if speed.bus else ""
    return f", computes {told} TFLOPS{bus}"


def _rates(speed: rates.DeviceRates | None, cores: int) -> dict[str, Any]:
    if speed is None:
        return {"operations_per_second": None, "bus_bytes_per_second": None}
    compute = {dtype: rate * cores for dtype, rate in speed.compute.items()}
    return {"operations_per_second": compute, "bus_bytes_per_second": speed.bus}


def _memory() -> Iterator[Check]:
    total, limit, usable = total_ram(), container_limit(), usable_ram()
    around = f", of which this process may use {format_size(limit)}" if limit else ", no container limit"
    facts = {"total": total, "container_limit": limit, "usable": usable}
    yield Check("ram", format_size(total) + around, facts=facts)
    yield _ram_budget()
    shared = Path("/dev/shm")  # noqa: S108 - it is looked at, not written
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        advice = "code that hands tensors to other processes needs more; in Docker: --shm-size=1g"
        told = f"{format_size(size)} in {shared}"
        yield Check("shared memory", told, advice if size < _LEAST_SHARED else "", facts={"total": size})


def _ram_budget() -> Check:
    """How a worker's RAM budget is kept: tried, since what files promise the kernel may refuse."""
    watchdog = "kept by a watchdog, which looks 20 times a second"
    if sys.platform != "linux":
        return Check("ram budget", watchdog, facts={"cgroup": False})
    if _limits_a_process():
        told = "a cgroup can be made for workers: the kernel can keep it"
        return Check("ram budget", told, facts={"cgroup": True})
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
    """Free space, and the speed if it is known: measured just now, or at an earlier time."""
    free, writable = shutil.disk_usage(place).free, os.access(place, os.W_OK)
    advice = []
    if not writable and name == "models":
        advice.append("no model can be fetched to it: set HF_HOME to a folder that you may write")
    elif not writable:
        advice.append("stand in a folder that you may write, or name one with --runs-dir")
    if name == "models" and free < _LEAST_FOR_MODELS:
        advice.append("large models need tens of GiB: make room, or set HF_HOME to a larger disk")
    elif free < _LEAST_FOR_RUNS:
        advice.append("make room, or keep runs elsewhere with --runs-dir")
    if name == "models" and speed and speed < _SLOW:
        advice.append(
            "weights that memory does not hold are read from here at every step: set HF_HOME to a faster disk"
        )
    if speed:
        rate = f"{speed / 1e9:.2f} GB/s"
        read = f", reads {rate}" if now else f", read {rate} when last measured"
    else:
        read = ", its speed could not be measured" if now else ""
    facts = {"folder": str(folder), "free": free, "writable": writable, "read_bytes_per_second": speed}
    told = f"{folder}: {format_size(free)} free{read}{'' if writable else ', not writable'}"
    return Check(name, told, "; ".join(advice), facts=facts)


def _software() -> Iterator[Check]:
    versions = {"python": platform.python_version()}
    absent = []
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    advice = f"not installed: {', '.join(absent)}; what needs them will fail: pip install {' '.join(absent)}"
    yield Check("versions", told, advice if absent else "", facts={"versions": versions, "absent": absent})
    if "torch" in versions:
        yield _torch()


def _torch() -> Check:
    """What torch was built for, read from its files: importing it would take seconds and memory."""
    try:
        text = Path(str(metadata.distribution("torch").locate_file("torch/version.py"))).read_text("utf-8")
    except OSError:
        text = ""
    built = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= '([^']+)'", text, re.MULTILINE))
    names = {"cuda": "CUDA", "hip": "ROCm"}
    told = " and ".join(f"{names[kind]} {version}" for kind, version in built.items()) or "the CPU only"
    blind = bool(accelerators()) and not built
    advice = "the accelerator cannot be used: install a CUDA build, see https://pytorch.org/get-started"
    return Check("torch", f"built for {told}", advice if blind else "", facts={"built_for": built})


def _plugins() -> Iterator[Check]:
    plugins = discover()
    for plugin in plugins.loaded:
        stages = [stage.name for stage in plugin.stages]
        told = f"{plugin.name} ({plugin.distribution} {plugin.version}): {', '.join(stages) or 'no stages'}"
        yield Check("plugin", told, facts={"plugin": plugin.name, "stages": stages})
    for broken in plugins.broken:
        what = f"stage '{broken.stages[0]}' of {broken.name}" if broken.stages else broken.name
        yield Check(
            "plugin",
            f"{what} ({broken.distribution}) is set aside: {broken.reason}",
            f"mend or update it, or uninstall it: pip uninstall {broken.distribution}",
            broken=True,
            facts={"plugin": broken.name, "stages": list(broken.stages), "reason": broken.reason},
        )
    if not plugins.loaded and not plugins.broken:
        yield Check("plugin", "none is installed", "`pip install runner-flux` brings FLUX")
