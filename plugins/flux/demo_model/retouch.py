"""Retouching: the decoder learns to overlook what the transformer still leaves, corners that are too round.

It sees the latents of the model's own drawings, and the pictures that these should have become; and, so that
it stays the inverse of its encoder, those pictures' own latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import pool as pools
from . import straighten, transformer
from . import vae as vae_part
from .training import Place, Schedule, fit

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

BATCH = 6  # pictures; half of the latents are drawn, half are the pictures' own


def train(plan: Schedule, count: int, place: Place) -> None:
    """Train the decoder on `count` drawings of the straightened model; leaves the autoencoder."""
    all_pairs = straighten.load(count, transformer.load(place, "straight.pt"), "retouched", place)
    vae = vae_part.load(place)

    def loss(_: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = straighten.pick(all_pairs, rng)
        chosen = rng.choice(len(pairs.captions), min(len(pairs.captions), BATCH), replace=False)
        own = torch.from_numpy(rng.random(len(chosen)) < 0.5)[:, None, None]
        tokens = torch.where(own, pairs.latents[chosen], pairs.drawn[chosen]).float().to(place.device)
        pixels = vae_part.to_tensor(list(pairs.painted[chosen].numpy()), place.device)
        with place.autocast():
            decoded = vae.decoder(vae_part.unscaled(vae, pools.unpack(tokens, pairs.canvas)))
        return vae_part.picture_loss(decoded.float(), pixels)

    if all_pairs:
        fit("retouched", vae, [{"params": list(vae.decoder.parameters())}], loss, plan, place)
    vae.save_pretrained(place.result("retouched"))
