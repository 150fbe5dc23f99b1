"""Measures the memory of an item beside the weights: its tensors, and the growth of the process."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runner.accelerator.backends import backend_of
from runner.accelerator.backends.generic import AcceleratorBackend
from runner.api.live_bytes import LiveBytes

if TYPE_CHECKING:
    from runner.plugin_check.record import MadeItem, Recording

_RESET_PEAK = "5"  # of resident memory: proc(5), /proc/pid/clear_refs


@dataclass(frozen=True)
class MeasuredPeak:
    """Peak bytes of tensors, reached ``at`` an operation, and of the process's growth, if it is known."""

    tensors: int
    at: str = ""
    process: int | None = None


def peak_of(recording: Recording, made: MadeItem) -> MeasuredPeak:
    """Make the item again, twice on the CPU, and measure."""
    inputs = recording.copied(made.inputs)
    backend = backend_of(recording.device)
    if isinstance(backend, AcceleratorBackend):
        before = backend.reset_peak()
        recording.call(made, inputs)
        return MeasuredPeak(backend.allocated_peak() - before)
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    with torch.inference_mode(), LiveBytes(recording.modules, tensors) as live:
        returned = recording.call(made, inputs)  # a worker holds the outputs until they are written
    del returned
    return MeasuredPeak(live.peak, live.at, _growth(recording, made))


def _growth(recording: Recording, made: MadeItem) -> int | None:
    """Bytes by which resident memory grows while the item is made; None if the kernel does not report it."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return None
    before = _status("VmRSS")
    recording.call(made, recording.copied(made.inputs))
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
