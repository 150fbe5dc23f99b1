"""Random generators that are the same in each stage, on each device, and in whatever order items run."""

from __future__ import annotations

import torch


def seeded(seed: int, device: torch.device) -> torch.Generator:
    """The item's generator; torch's own, which some pipelines draw from, get the same seed.

    The item's is on the CPU, so that all devices begin with the same noise.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
    return torch.Generator("cpu").manual_seed(seed)
