"""The activation formulas of the flux plugin, held against what the stages' own code holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from flux_stages import instead
from runner_flux import memory

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # oneDNN asks for room for every thread, and uses one's worth
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tensors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernels, for they show in no run on fake tensors; numpy's part in torch, for these have no memory."""
    monkeypatch.setattr(memory, "_convolution", lambda *_, **__: 0)
    instead(monkeypatch, "pt_to_numpy", lambda pixels: pixels.cpu().permute(0, 2, 3, 1).float())
    instead(monkeypatch, "numpy_to_pil", lambda pixels: [(pixels * 255).round().byte()])
