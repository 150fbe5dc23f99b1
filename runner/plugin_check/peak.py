"""The memory that an item takes beside the weights: tensors exactly, all else from the kernel's high mark."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from runner.plugin_check.live_bytes import LiveBytes

if TYPE_CHECKING:
    from runner.plugin_check.record import MadeItem, Recording

_RESET_HIGH_MARK = "5"  # proc(5), /proc/pid/clear_refs


@dataclass(frozen=True)
class MeasuredPeak:
    """Bytes at the most: of tensors, ``at`` an operation; by which the process grew, if that is told."""

    tensors: int
    at: str = ""
    process: int | None = None


def peak_of(recording: Recording, made: MadeItem) -> MeasuredPeak:
    """Make the item again, twice on the CPU, and measure."""
    inputs = recording.copied(made.inputs)
    if recording.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(recording.device)
        before = torch.cuda.memory_allocated(recording.device)
        recording.call(made, inputs)
        return MeasuredPeak(torch.cuda.max_memory_allocated(recording.device) - before)
    tensors = [value for value in inputs.values() if isinstance(value, torch.Tensor)]
    with torch.inference_mode(), LiveBytes(recording.modules, tensors) as live:
        returned = recording.call(made, inputs)  # held: what is returned is alive until it is written
    del returned
    return MeasuredPeak(live.peak, live.at, _growth(recording, made))


def _growth(recording: Recording, made: MadeItem) -> int | None:
    """Bytes by which resident memory grows while the item is made; None where the kernel does not tell."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_HIGH_MARK)
    except OSError:
        return None
    before = _status("VmRSS")
    recording.call(made, recording.copied(made.inputs))
    return _status("VmHWM") - before


def _status(field: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
