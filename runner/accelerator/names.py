"""Names of devices, as manifests and torch have them: ``cpu``, or a kind of accelerator and its number."""

from __future__ import annotations

import re

CPU, AUTO = "cpu", "auto"
CUDA, XPU, MPS, SIM = "cuda", "xpu", "mps", "sim"
BUS_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""The environment of workers, so that their ``cuda:N`` is the N-th card of NVML and of ``nvidia-smi``."""
KINDS = (CUDA, XPU, MPS, SIM)
"""Kinds of accelerators, by torch's names, in the order in which ``auto`` looks for one. ROCm is ``cuda``."""
PATTERN = r"^(auto|cpu|mps|(cuda|xpu|sim)(:\d+)?)$"
CHOICES = "auto, cpu, cuda[:N], xpu[:N], mps or sim[:N]"
TIER = r"^(cpu|disk|(cuda|xpu|mps|sim)(:\d+)?)$"
"""Where a device map may place weights, besides plain numbers of accelerators."""
TIER_CHOICES = "cpu, disk, cuda[:N], xpu[:N], mps, sim[:N], N"


def is_device(name: str) -> bool:
    """Whether a manifest may have it as its device."""
    return re.fullmatch(PATTERN, name) is not None


def is_accelerator(device: str) -> bool:
    """Whether a device, by torch's name, is not the CPU."""
    return kind_of(device) in KINDS


def kind_of(device: str) -> str:
    """The kind of a device: ``"cuda:1"`` is ``"cuda"``."""
    return device.partition(":")[0]


def index_of(device: str) -> int:
    """The number of a device among those of its kind; 0 where its name has none."""
    return int(device.partition(":")[2] or 0)
