"""Finds the accelerators of this machine without importing torch into this process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.accelerator.device import Device
from runner.accelerator.names import AUTO, CPU, CUDA, KINDS, MPS, SIM, XPU, index_of, kind_of
from runner.errors import BudgetError
from runner.files.cache import cache_folder, cache_value, cached_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VARIABLE = "RUNNER_ACCELERATOR"
BUILDS = {CUDA: "CUDA", "hip": "ROCm", XPU: "XPU"}
"""What torch can be built for, by the names in its version file."""
PATIENCE = 120.0  # seconds for torch to be imported and its devices to be counted
_FILE = "accelerators.json"  # in the cache folder
_DECIDES = ("SIM_", "CUDA_", "HIP_", "ROCR_", "ZE_", "ONEAPI_", "TORCH_", VARIABLE)
"""Prefixes of the environment variables that decide which devices there are."""


@dataclass(frozen=True)
class Found:
    """The devices of one kind, and why there are none."""

    devices: tuple[Device, ...] = ()
    reason: str = ""
    unusable: bool = False
    """Whether the machine has some, and the PyTorch that is installed is not built for them."""


def accelerators() -> tuple[Device, ...]:
    """The devices that workers would see: kinds as ``auto`` prefers them, each in torch's order."""
    return tuple(device for kind in _kinds() for device in find(kind).devices)


def find(kind: str) -> Found:
    """The devices of a kind that a worker would see."""
    return _find(kind, tuple(sorted((n, v) for n, v in os.environ.items() if n.startswith(_DECIDES))))


def device_named(name: str, devices: Iterable[Device]) -> Device | None:
    """The device with that torch name; None if it is not among them, or the CPU."""
    kind, index = kind_of(name), index_of(name)
    return next((device for device in devices if (device.kind, device.index) == (kind, index)), None)


def choose_device(device: str, *, vram: int | None, found: Sequence[Device] | None = None) -> str:
    """The torch device for a budget's ``device`` and VRAM limit: ``auto`` is an accelerator if there is one.

    ``found`` are the accelerators of the machine, by default this one's.

    Raises:
        BudgetError: the device is not here; or a VRAM budget is given and there is nothing to spend it on.

    """
    if device == CPU:
        return CPU
    here = accelerators() if found is None else found
    if device != AUTO:
        chosen = device_named(device, here)
        if chosen is None:
            raise BudgetError(f"the budget's device is {device}, and this machine has {_which(device, here)}")
        return chosen.id
    if here:
        return here[0].id
    if vram is None:
        return CPU
    why = "" if found is not None else "".join(f" ({kind}: {why})" for kind, why in reasons().items())
    raise BudgetError(
        f"the budget gives vram, and this machine has no accelerator (or no driver for it){why}; "
        "to run on the CPU all the same, slowly: --set budget.device=cpu"
    )


def _which(device: str, here: Sequence[Device]) -> str:
    same = [one.id for one in here if one.kind == kind_of(device)]
    reason = find(kind_of(device)).reason
    return ", ".join(same) or f"none of that kind{f' ({reason})' if reason else ''}"


def torch_built_for() -> dict[str, str]:
    """What the installed torch supports besides the CPU: version by name (``cuda``, ``hip``, ``xpu``)."""
    try:
        file = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
        text = file.read_text(encoding="utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return {}
    return dict(re.findall(r"^(cuda|hip|xpu)\b[^=\n]*= '([^']+)'", text, re.MULTILINE))


def reasons() -> dict[str, str]:
    """Why kinds of accelerators that ``auto`` looks for are not here, by their names."""
    return {kind: find(kind).reason for kind in _kinds() if not find(kind).devices}


def _kinds() -> tuple[str, ...]:
    """The kinds that ``auto`` looks for; the simulated one only if the environment asks for it."""
    kind = os.environ.get(VARIABLE)
    if not kind:
        return tuple(one for one in KINDS if one != SIM)
    if kind not in KINDS:
        raise BudgetError(f"{VARIABLE}={kind}: no such kind of accelerator; one of {', '.join(KINDS)}")
    return (kind,)


@cache
def _find(kind: str, environment: tuple[tuple[str, str], ...]) -> Found:
    built = torch_built_for()
    if kind == CUDA and "hip" not in built:
        from runner.accelerator import (
            nvml,  # its library takes 30 ms, which only they need who look for cards
        )

        devices, reason = nvml.devices()
        if devices and CUDA not in built:
            here = " and ".join(dict.fromkeys(device.name for device in devices))
            return Found(
                reason=f"{here} is here, and the PyTorch that is installed is not built for it", unusable=True
            )
        return Found(devices, reason)
    if kind == SIM and os.environ.get(VARIABLE) != SIM:
        return Found(reason=f"it is simulated, for tests: set {VARIABLE}={SIM}")
    if kind == XPU and XPU not in built:
        return Found(reason="PyTorch is not built for it")
    if kind == MPS and sys.platform != "darwin":
        return Found(reason="it is Apple's")
    return _as_torch_sees(kind, f"{kind} {metadata.version('torch')} {_boot_id()} {environment}")


def _as_torch_sees(kind: str, cache_key: str) -> Found:
    cached: Any = cached_values(_FILE).get(cache_key)
    if cached is not None:
        with contextlib.suppress(TypeError):  # another version wrote it
            return Found(_devices(kind, cached))
    facts = _probe(kind)
    if isinstance(facts, Found):
        return facts
    if not facts:
        return Found(reason="torch sees none")
    cache_value(_FILE, cache_key, facts)
    return Found(_devices(kind, facts))


def _devices(kind: str, facts: list[dict[str, Any]]) -> tuple[Device, ...]:
    return tuple(Device(kind, n, **fact) for n, fact in enumerate(facts))


def forget() -> None:
    """Have the next question answered by torch, whatever was cached since the machine was started."""
    _find.cache_clear()
    (cache_folder() / _FILE).unlink(missing_ok=True)


def _boot_id() -> str:
    """Changes when the machine starts: cards may have been changed before; empty where it is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _probe(kind: str) -> list[dict[str, Any]] | Found:
    """Have torch list the devices, in a child process: it takes seconds to import."""
    command = [sys.executable, "-P", "-m", "runner.accelerator.probe", kind]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False, text=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Found(reason=str(error))
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return Found(reason=f"torch failed to list devices: {last[0]}")
    facts: list[dict[str, Any]] = json.loads(done.stdout)
    return facts
