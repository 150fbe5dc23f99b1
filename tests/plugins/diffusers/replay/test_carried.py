"""State that a loop keeps outside of what checkpoints hold is noticed, and what only looks like it is not."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from plugins.diffusers.replay.sketch import CPU
from runner_diffusers.replay.carried import locals_of_call
from runner_diffusers.replay.loop import Loop
from runner_diffusers.replay.schedulers import own_scheduler
from runner_diffusers.replay.views import Arguments

CALL = """
import torch

class Average:
    running = 0

class Fixed:
    def __init__(self):
        self.table = torch.ones(2)

def __call__(self, denoise, step):
    average, fixed, scheduler, latents = Average(), Fixed(), step.scheduler, torch.ones(2)
    for t in range(3):
        self.current = torch.tensor(t)
        output = Fixed()
        predicted = denoise(latents)
        STATE
        latents = step(predicted, latents)
"""


class Step:
    """Calls the scheduler's step; by its name in the pipeline it is what the loop keeps the state of."""

    def __init__(self, loop: Loop) -> None:
        self.scheduler = own_scheduler(
            diffusers.EulerDiscreteScheduler(), lambda one, _, call: loop.step(one, call)
        )
        self.count = 0

    def __call__(self, predicted: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        self.count += 1
        stepped: torch.Tensor = self.scheduler.step(
            predicted, self.scheduler.timesteps[self.count], latents
        ).prev_sample
        return stepped


@pytest.mark.parametrize(
    ("state", "is_carried"),
    [
        ("pass", False),
        ("average.running = predicted * 0.5 + average.running", True),
        ("fixed.table += predicted", True),
        ("average.seen = t", False),  # a number that the call counts itself
        ("output.table += predicted", False),  # a new object in each iteration
    ],
)
def test_an_object_of_the_call_that_keeps_tensors(state: str, is_carried: bool) -> None:
    scope: dict[str, Any] = {"__name__": "diffusers.pipelines.sketch"}
    exec(CALL.replace("STATE", state), scope)
    borders: list[bool] = []
    loop = Loop(torch.Generator(), [], CPU, on_border=lambda: borders.append(loop.can_be_continued))

    def denoise(latents: torch.Tensor) -> Any:
        return loop.denoise("unet", Arguments(None, lambda _, given: given + 1, (latents.clone(),), {}))

    scope["__call__"](Average(), denoise, Step(loop))

    assert borders == [not is_carried] * 2
    assert locals_of_call() == {}


class Average:
    """Stands for the pipeline."""
