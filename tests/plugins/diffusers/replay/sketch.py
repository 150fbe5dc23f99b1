"""A pipeline's loop with a toy denoiser: what a denoise stage does around it is real."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import diffusers
import torch
from runner_diffusers.replay.loop import Loop, LoopState
from runner_diffusers.replay.schedulers import own_scheduler
from runner_diffusers.replay.views import Arguments
from safetensors.torch import load, save

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
STEPS = 6


class Guider:
    """Keeps state between steps, as guiders do."""

    def __init__(self) -> None:
        self.momentum: torch.Tensor | None = None

    def __call__(self, predicted: torch.Tensor) -> torch.Tensor:
        self.momentum = predicted if self.momentum is None else predicted + self.momentum / 2
        return self.momentum


class Sketch:
    """A pipeline's loop: a denoiser, a guider, and schedulers that step in each iteration."""

    def __init__(self, done: LoopState | None = None, schedulers: int = 1, scheduler: Any = None) -> None:
        self.generator = torch.Generator().manual_seed(3)
        torch.default_generator.manual_seed(3)
        self.guider = Guider()
        self.computed = 0
        self.states: list[LoopState] = []
        self.loop = Loop(self.generator, [self.guider], CPU, done, self._on_border)
        scheduler = scheduler or diffusers.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
        self.schedulers = [own_scheduler(scheduler, self._on_scheduler) for _ in range(schedulers)]

    def _on_scheduler(self, scheduler: Any, method: str, call: Callable[[], Any]) -> Any:
        if method == "set_timesteps":
            self.loop.begin(scheduler)
            return call()
        return self.loop.step(scheduler, call)

    def _on_border(self) -> None:
        self.states.append(through_a_file(self.loop.state()))

    def _denoise(self, latents: torch.Tensor) -> Any:
        def call(_: Any, latents: torch.Tensor) -> Any:
            self.computed += 1
            return (torch.tanh(latents) + torch.randn(1), [latents.sum()])

        return self.loop.denoise("unet", Arguments(self, call, (latents,), {}))

    def run(self) -> torch.Tensor:
        latents = torch.randn(1, 4, 4, generator=self.generator)
        for one in self.schedulers:
            one.set_timesteps(STEPS)
        for t in self.schedulers[0].timesteps:
            given = latents
            if hasattr(self.schedulers[0], "scale_model_input"):
                given = self.schedulers[0].scale_model_input(latents, t)
            predicted = self.guider(self._denoise(given)[0])
            for one in self.schedulers:
                latents = one.step(predicted, t, latents, **self._more(one)).prev_sample
        return latents + torch.randn(1, 4, 4, generator=self.generator) + torch.randn(1)

    def _more(self, scheduler: Any) -> dict[str, Any]:
        takes = inspect.signature(scheduler.step).parameters
        return {"generator": self.generator} if "generator" in takes else {}


def through_a_file(state: LoopState) -> LoopState:
    values = json.loads(json.dumps(state.values, sort_keys=True))
    return LoopState(load(save({n: t.contiguous() for n, t in state.tensors.items()})), values)
