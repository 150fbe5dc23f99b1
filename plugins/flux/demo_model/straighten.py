"""Straightening: the model learns from its own drawings, each one painted as it should have been.

A drawing starts from noise, and the noise decides where its things are and how big; what is wrong with it
are the outlines. So the things are found in the drawing, and the true picture is painted with its things just
there. Noise and true picture then belong together, and the way from one to the other is a straight line:
nothing is left to average over, which is what makes outlines wobble. (The reflow of Liu et al. 2022, "Flow
Straight and Fast", with its ends corrected.) Half of what it learns from lies on its own way, faults and
all, and leads to the true picture from there: what it drew wrong at first it learns to mend.
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
# A share is learnt from where the model's own way leads past, with its outlines, so that it learns to mend
# them; with less noise than in a drawing's last step there is nothing to be done any more.
OWN_WAY, LEAST_NOISE = 0.5, 0.07


@dataclass
class Pairs:
    """Drawings of one canvas: the noise they came from, and what it should have led to."""

    canvas: tuple[int, int]
    captions: list[str]
    guidance: Tensor  # pairs
    noise: Tensor  # pairs x tokens x 64, bfloat16
    drawn: Tensor  # as noise: the latents that the model made of it
    latents: Tensor  # as noise: those that it should have made

    def on_the_way(self, chosen: NDArray[np.int64], place: Place) -> tuple[Noisy, Tensor, Tensor]:
        """Some of them in the midst of it, the way from there, and how much to weigh what is missed of it."""
        own = torch.rand(len(chosen), 1, 1) < OWN_WAY
        sigma = transformer.noise_levels(len(chosen), transformer.EDGES).clamp(min=LEAST_NOISE)
        weight = torch.where(own, sigma[:, None, None] ** 2, 1.0)  # there: by what is missed of the picture
        latents = torch.where(own, self.drawn[chosen], self.latents[chosen])
        parts = (latents, self.noise[chosen], sigma, self.latents[chosen], weight)
        latents, noise, sigma, wanted, weight = (part.float().to(place.device) for part in parts)
        noisy = Noisy(self.canvas, latents, noise, sigma)
        return noisy, (noisy.here - wanted) / sigma[:, None, None], weight


def train(plan: Schedule, batch_size: int, count: int, place: Place) -> None:
    """Straighten what the distillation left; leaves all weights."""
    model = transformer.load(place, "distilled.pt")
    all_pairs = load(count, model, place)
    sizes = [len(pairs.captions) for pairs in all_pairs]

    def loss(_: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        pairs = all_pairs[rng.choice(len(all_pairs), p=[size / sum(sizes) for size in sizes])]
        length, part = text.draw_length(rng)
        size = min(len(pairs.captions), max(1, int(batch_size * part)))
        chosen = rng.choice(len(pairs.captions), size, replace=False)
        noisy, way, weight = pairs.on_the_way(chosen, place)
        with torch.no_grad(), place.autocast():
            told = model.text([pairs.captions[index] for index in chosen], length)
        guidance = pairs.guidance[chosen].to(place.device)
        guess = transformer.velocity(model.net, noisy, told, guidance, place)
        return (weight * (guess - way) ** 2).mean(), {}

    if all_pairs:
        fit("straight", model, [{"params": list(model.net.parameters())}], loss, plan, place)
    else:
        print("no drawing is right: there is nothing to straighten yet", flush=True)
    torch.save(model.state_dict(), place.result("straight.pt"))


def load(count: int, model: Model, place: Place) -> list[Pairs]:
    """The pairs of `count` drawings, less those that went wrong, by canvas; drawn if they are not there."""
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
        told = model.text(captions, text.SHORT)
    drawn = sampler.draw(
        model.net, noise.float().to(place.device), canvas, told, guidance.to(place.device), place
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
    """One of so many things: what is alone is larger, and its outline the harder part, but it is rarer."""
    while len((scene := draw_scene(rng)).things) != things:
        pass
    return scene


def _painted(
    pictures: list[Picture], scenes: list[Scene], canvas: tuple[int, int]
) -> Iterator[tuple[int, Picture]]:
    """Of the drawings that are right, by number: the true pictures with the things where they were drawn."""
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
