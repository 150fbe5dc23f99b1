"""Straightening: fine-tunes the model on its own drawings, with corrected pictures as targets.

The noise decides where a drawing's things are and how large; its faults are in the outlines. So the things
are located in the drawing, and the ground-truth picture is painted with them at these places. Each noise then
has exactly one target, and the path between them is straight: the model no longer averages over several,
which blurs outlines. (This is the reflow of Liu et al. 2022, "Flow Straight and Fast", with corrected
targets.) Half of the examples lie on the model's own path, with its faults, and lead to the ground truth from
there, so that it learns to correct them in later steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from . import distill, sampler, text, transformer
from . import pool as pools
from . import vae as vae_part
from .captions import write_caption
from .scenes import CANVASES, draw_scene, paint
from .scorer import locate
from .training import Place, Schedule, fit, generator_of
from .transformer import Noisy

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from diffusers import AutoencoderKL
    from numpy.typing import NDArray
    from torch import Tensor

    from .scenes import Picture, Scene
    from .transformer import Model

AT_ONCE = 32  # drawings
OTHER_CANVASES = 10  # one batch in so many is of another canvas than the square one
OWN_PATH = 0.5  # share of the examples on the model's own path
LEAST_NOISE = 0.07  # that of the last sampling step


@dataclass
class Pairs:
    """Drawings of one canvas: their noise, and the latents that it should have led to."""

    canvas: tuple[int, int]
    captions: list[str]
    guidance: Tensor  # pairs
    noise: Tensor  # pairs x tokens x 64, bfloat16
    drawn: Tensor  # as noise: the latents that the model drew
    latents: Tensor  # as noise: the corrected ones

    def examples(self, chosen: NDArray[np.int64], place: Place) -> tuple[Noisy, Tensor, Tensor]:
        """Noisy latents of some pairs, with the target velocities and the weights of the loss."""
        own = torch.rand(len(chosen), 1, 1) < OWN_PATH
        sigma = transformer.noise_levels(len(chosen), transformer.EDGES).clamp(min=LEAST_NOISE)
        weight = torch.where(own, sigma[:, None, None] ** 2, 1.0)  # there: the error of the picture
        latents = torch.where(own, self.drawn[chosen], self.latents[chosen])
        parts = (latents, self.noise[chosen], sigma, self.latents[chosen], weight)
        latents, noise, sigma, target, weight = (part.float().to(place.device) for part in parts)
        noisy = Noisy(self.canvas, latents, noise, sigma)
        return noisy, (noisy.mixed - target) / sigma[:, None, None], weight


def train(plan: Schedule, batch_size: int, count: int, place: Place) -> None:
    """Fine-tune the distilled model; writes straight.pt."""
    model = transformer.load(place, "distilled.pt")
    all_pairs = load(count, model, place)
    sizes = [len(pairs.captions) for pairs in all_pairs]

    def loss(_: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = all_pairs[rng.choice(len(all_pairs), p=[size / sum(sizes) for size in sizes])]
        length, part = text.draw_length(rng)
        size = min(len(pairs.captions), max(1, int(batch_size * part)))
        chosen = rng.choice(len(pairs.captions), size, replace=False)
        noisy, target, weight = pairs.examples(chosen, place)
        with torch.no_grad(), place.autocast():
            embeds = model.text([pairs.captions[index] for index in chosen], length)
        guidance = pairs.guidance[chosen].to(place.device)
        guess = transformer.velocity(model.net, noisy, embeds, guidance, place)
        return (weight * (guess - target) ** 2).mean(), {}

    if all_pairs:
        fit("straight", model, [{"params": list(model.net.parameters())}], loss, plan, place)
    else:
        print("no drawing is right: there is nothing to straighten yet", flush=True)
    torch.save(model.state_dict(), place.result("straight.pt"))


def load(count: int, model: Model, place: Place) -> list[Pairs]:
    """The pairs of `count` drawings by canvas, without wrong ones; drawn if there is no file yet."""
    path = place.result(f"pairs-{count}.pt")
    if not path.exists():
        torch.save([vars(pairs) for pairs in _draw_all(count, model, place)], path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    return [Pairs(**parts) for parts in torch.load(path, weights_only=True)]


def _draw_all(count: int, model: Model, place: Place) -> list[Pairs]:
    vae = vae_part.load(place)
    drawn: dict[tuple[int, int], list[Pairs]] = {}
    for index in range(-(-count // AT_ONCE)):
        rng = generator_of(place.seed, "pairs", index)
        canvas = CANVASES[0] if index % OTHER_CANVASES else CANVASES[index // OTHER_CANVASES % len(CANVASES)]
        pairs = _draw(canvas, min(AT_ONCE, count), rng, model, vae, place)
        if pairs is not None:
            drawn.setdefault(canvas, []).append(pairs)
        if index % 10 == 0:
            kept, tried = sum(len(p.captions) for of in drawn.values() for p in of), (index + 1) * AT_ONCE
            print(f"pairs: {tried}/{count} drawn, {kept} right", flush=True)
    return [_joined(parts) for parts in drawn.values()]


@torch.no_grad()
def _draw(
    canvas: tuple[int, int],
    count: int,
    rng: np.random.Generator,
    model: Model,
    vae: AutoencoderKL,
    place: Place,
) -> Pairs | None:
    """The pairs of one batch; None if no drawing is right."""
    scenes = [_scene(rng, things=1 + number % 2) for number in range(count)]
    captions = [write_caption(scene, rng).text for scene in scenes]
    torch.manual_seed(int(rng.integers(2**62)))
    tokens = canvas[0] * canvas[1] // pools.PATCH**2
    noise = torch.randn(count, tokens, model.net.config.in_channels).bfloat16()
    guidance = 1 + (distill.STRONGEST - 1) * torch.rand(count)
    with place.autocast():
        embeds = model.text(captions, text.SHORT)
    drawn = sampler.draw(
        model.net, noise.float().to(place.device), canvas, embeds, guidance.to(place.device), place
    )
    with place.autocast():
        pictures = vae_part.to_pictures(vae.decoder(vae_part.unscaled(vae, pools.unpack(drawn, canvas))))
    painted = dict(_painted(pictures, scenes, canvas))
    right = list(painted)
    if not right:
        return None
    with place.autocast():
        encoded = vae_part.encode(vae, vae_part.to_tensor(list(painted.values()), place.device))
    latents = pools.pack(vae_part.scaled(vae, encoded))
    return Pairs(
        canvas,
        [captions[index] for index in right],
        guidance[right],
        noise[right],
        drawn[right].cpu().bfloat16(),
        latents.cpu().bfloat16(),
    )


def _scene(rng: np.random.Generator, things: int) -> Scene:
    """A random scene with that number of things: scenes of one are harder, as it is larger, but rarer."""
    while len((scene := draw_scene(rng)).things) != things:
        pass
    return scene


def _painted(
    pictures: list[Picture], scenes: list[Scene], canvas: tuple[int, int]
) -> Iterator[tuple[int, Picture]]:
    """The number of each right drawing, and the ground truth with the things where they were drawn."""
    for index, (picture, scene) in enumerate(zip(pictures, scenes, strict=True)):
        spots = locate(picture, scene)
        if spots:
            yield index, paint(scene, spots, canvas)


def _joined(parts: list[Pairs]) -> Pairs:
    together = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("guidance", "noise", "drawn", "latents")
    }
    return Pairs(parts[0].canvas, [text for part in parts for text in part.captions], **together)
