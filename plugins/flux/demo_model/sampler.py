"""Sampling, like FLUX's pipeline with the demo's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from .drawing import Settings
from .transformer import Noisy, velocity

if TYPE_CHECKING:
    from diffusers import FluxTransformer2DModel
    from torch import Tensor

    from .training import Place


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    """A scheduler with the settings of FLUX.1-dev."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    )  # fmt: skip


@torch.no_grad()
def draw(
    net: FluxTransformer2DModel,
    noise: Tensor,
    canvas: tuple[int, int],
    embeds: tuple[Tensor, Tensor],
    guidance: Tensor,
    place: Place,
) -> Tensor:
    """Latents (batch x tokens x 64, packed) from noise of that shape, in the demo's number of steps."""
    steps = scheduler()
    sigmas = torch.linspace(1, 1 / Settings.steps, Settings.steps).tolist()
    steps.set_timesteps(sigmas=sigmas, mu=calculate_shift(noise.shape[1]), device=place.device)
    latents = noise
    for time in steps.timesteps:
        sigma = (time / steps.config.num_train_timesteps).expand(len(latents))
        guess = velocity(net, Noisy(canvas, latents, latents, sigma), embeds, guidance, place)
        latents = steps.step(guess, time, latents, return_dict=False)[0]
    return latents
