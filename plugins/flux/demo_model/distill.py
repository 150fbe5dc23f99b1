"""Guidance distillation: one forward pass learns what guided drawing needs two for (Meng et al. 2023)."""

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

STRONGEST = 5.0  # guidance is drawn from 1 (none) to this
PURE_NOISE_SHARE = 0.15  # of the examples are almost all noise: where drawing begins, and rare otherwise


def train(plan: Schedule, batch_size: int, scenes: int, place: Place) -> None:
    """Teach the transformer to follow its own guided self at any `guidance_scale`; leaves all weights."""
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
        told = tokens[:-1], pooled[:-1]
        untold = tokens[-1:].expand_as(told[0]), pooled[-1:].expand_as(told[1])
        with torch.no_grad():
            with_caption = transformer.velocity(teacher, batch, told, none, place)
            without = transformer.velocity(teacher, batch, untold, none, place)
            # Half the teacher's word, half the truth: one is steady, the other goes on teaching.
            told_way = (with_caption + batch.way) / 2
            target = told_way + (guidance - 1)[:, None, None] * (with_caption - without)
        guess = transformer.velocity(model.net, batch, told, guidance, place)
        return functional.mse_loss(guess, target), {}

    groups = [{"params": list(model.net.parameters())}]
    fit("distilled", model, groups, loss, plan, place)
    torch.save(model.state_dict(), place.result("distilled.pt"))
