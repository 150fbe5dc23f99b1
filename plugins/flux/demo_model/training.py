"""The training loop of all parts: deterministic by seed, also after an interruption."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor, nn

    Weights = dict[str, Tensor]
    # (step, random generator) to the loss, and numbers for the progress line
    Loss = Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """Steps, and the learning rate over them: a warm-up, the peak, and a cosine to almost zero."""

    steps: int
    peak: float
    warm: int = 100  # steps
    cooling: float = 0.5  # the share of the steps over which the rate falls: most of the gain comes there

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        done = step / max(1, self.steps)
        fall = max(0.0, (done - 1 + self.cooling) / self.cooling)
        return (
            self.peak
            * min(1.0, (step + 1) / self.warm)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fall)))
        )


@dataclass
class Place:
    """Where and how the parts are trained: the settings of the command line."""

    work: Path
    device: torch.device
    seed: int = 0
    save_every: float = 60.0  # seconds between two saved states

    def state(self, part: str) -> Path:
        """The file that a part's unfinished training is resumed from."""
        return self.work / f"{part}.state.pt"

    def result(self, part: str) -> Path:
        """The folder or file that a part writes when it is finished."""
        return self.work / part

    def autocast(self) -> torch.autocast:
        """Use bfloat16 if the device has instructions for it: 5 times as fast, else 10 times slower."""
        fast = self.device.type != "cpu" or torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=fast)


def generator_of(seed: int, part: str, step: int) -> np.random.Generator:
    """A generator seeded by these alone, so that a resumed training draws the same batches."""
    return np.random.default_rng((seed, zlib.crc32(part.encode()), step))


def fit(
    part: str, model: nn.Module, groups: Iterable[dict[str, Any]], loss: Loss, plan: Schedule, place: Place
) -> None:
    """Train `model` in place; at the end it has the moving average of its weights.

    `groups` are AdamW's parameter groups; a group's "share" scales the learning rate for it.
    """
    optimizer = torch.optim.AdamW(groups, lr=plan.peak, betas=(0.9, 0.97), weight_decay=0.0, fused=True)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    step = _resume(place.state(part), model, optimizer, average)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    progress = _Progress(part, plan.steps)
    saved = time.monotonic()
    while step < plan.steps:
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step) * group.get("share", 1.0)
        rng = generator_of(place.seed, part, step)
        torch.manual_seed(int(rng.integers(2**62)))
        value, notes = loss(step, rng)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        _update_average(average, model.state_dict(), min(0.998, (1 + step) / (10 + step)))
        progress.add(step, value, notes)
        if time.monotonic() - saved > place.save_every or step == plan.steps:
            _save(place.state(part), model, optimizer, average, step)
            saved = time.monotonic()
    model.load_state_dict(average)


@torch.no_grad()
def _update_average(average: Weights, current: Weights, keep: float) -> None:
    torch._foreach_lerp_([average[name] for name in current], list(current.values()), 1 - keep)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Weights) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"])


def _save(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, average: Weights, step: int
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")  # renamed when complete, so that an interruption leaves no partial state
    state = {
        "step": step,
        "model": model.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, part)
    part.replace(path)


class _Progress:
    """Prints a line every 100 steps: the means since the last one, and the remaining time."""

    def __init__(self, part: str, steps: int) -> None:
        self.part, self.steps = part, steps
        self.rows: list[dict[str, float]] = []
        self.since = time.monotonic()

    def add(self, step: int, loss: Tensor, notes: dict[str, float]) -> None:
        self.rows.append({"loss": loss.item(), **notes})
        if step % 100 and step != self.steps:
            return
        pace = (time.monotonic() - self.since) / len(self.rows)
        means = "  ".join(f"{key} {np.mean([row[key] for row in self.rows]):.4f}" for key in self.rows[0])
        left = pace * (self.steps - step) / 60
        print(f"{self.part} {step}/{self.steps}  {means}  {pace:.3f} s/step  {left:.0f} min left", flush=True)
        self.rows, self.since = [], time.monotonic()
