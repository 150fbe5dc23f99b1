"""Guidance distillation: one forward pass learns the result of two with guidance (Meng et al. 2023)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from . import pool as pools
from . import transformer
from .training import Place, Schedule, fit

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STRONGEST = 5.0  # guidance is sampled from 1 (none) to this
PURE_NOISE_SHARE = (
    0.15  # of the examples are almost all noise: sampling starts there, and it is rare otherwise
)


def train(plan: Schedule, batch_size: int, scenes: int, place: Place) -> None:
    """Distil the guided transformer into one that takes `guidance_scale`; writes distilled.pt."""
    from_pools = pools.load(scenes, place)
    model = transformer.load(place)
    teacher = copy.deepcopy(model.net).eval().requires_grad_(requires_grad=False)

    def loss(_: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        batch = transformer.draw_batch(from_pools, batch_size, rng, place, lean=transformer.EDGES, empty=0)
        size = len(batch.captions)
        noisiest = torch.rand(size) < PURE_NOISE_SHARE
        sigma = torch.where(noisiest, 1 - 0.02 * torch.rand(size), batch.sigma.cpu())
        batch = replace(batch, sigma=sigma.to(place.device))
        guidance = (1 + (STRONGEST - 1) * torch.rand(size)).to(place.device)
        none = torch.ones_like(guidance)
        with torch.no_grad(), place.autocast():
            tokens, pooled = model.text([*(caption.text for caption in batch.captions), ""], batch.length)
        embeds = tokens[:-1], pooled[:-1]
        empty = tokens[-1:].expand_as(embeds[0]), pooled[-1:].expand_as(embeds[1])
        with torch.no_grad():
            with_caption = transformer.velocity(teacher, batch, embeds, none, place)
            without = transformer.velocity(teacher, batch, empty, none, place)
            # half the teacher's prediction, which has less variance, and half the ground truth
            guided = (with_caption + batch.velocity) / 2
            target = guided + (guidance - 1)[:, None, None] * (with_caption - without)
        guess = transformer.velocity(model.net, batch, embeds, guidance, place)
        return functional.mse_loss(guess, target), {}

    groups = [{"params": list(model.net.parameters())}]
    fit("distilled", model, groups, loss, plan, place)
    torch.save(model.state_dict(), place.result("distilled.pt"))
