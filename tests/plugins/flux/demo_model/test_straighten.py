"""Straightening, on a few drawings of the packaged model."""

# mypy: disable-error-code="name-defined"

from __future__ import annotations

from pathlib import Path

import pytest
import runner_flux
import torch
from demo_model import assemble, pool, straighten, transformer, vae
from demo_model.captions import read_caption
from demo_model.scorer import judge
from demo_model.training import Place, Schedule

PACKAGED = Path(runner_flux.__file__).parent / "demo"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The packaged model as the finished parts of a training."""
    torch.set_num_threads(1)
    place = Place(tmp_path_factory.mktemp("trained"), torch.device("cpu"), seed=5, save_every=60)
    assemble.take_apart(PACKAGED, place)
    return place


@pytest.fixture(scope="module")
def pairs(place: Place) -> straighten.Pairs:
    (found,) = straighten.load(8, transformer.load(place, "distilled.pt"), place)
    return found


def test_what_was_drawn_is_kept_where_it_is_right(pairs: straighten.Pairs, place: Place) -> None:
    assert len(pairs.captions) >= 6
    for caption, drawn in zip(pairs.captions, pairs.drawn, strict=True):
        assert judge(_decoded(drawn, pairs, place), read_caption(caption)).right


def test_it_is_led_to_crisp_pictures_near_what_was_drawn(pairs: straighten.Pairs, place: Place) -> None:
    for caption, latents in zip(pairs.captions, pairs.latents, strict=True):
        verdict = judge(_decoded(latents, pairs, place), read_caption(caption))
        assert verdict.right
        assert verdict.crisp
    moved = (pairs.latents - pairs.drawn).float().square().mean()
    others = (pairs.latents - pairs.drawn.roll(1, 0)).float().square().mean()
    assert moved < others / 3


def test_training_brings_drawings_nearer_to_what_they_should_be(
    pairs: straighten.Pairs, place: Place
) -> None:
    straighten.train(Schedule(12, 3e-4, warm=2), 8, 8, place)
    before, after = (_distance(pairs, place, name) for name in ("distilled.pt", "straight.pt"))
    assert after < before


@torch.no_grad()
def _decoded(latents: torch.Tensor, pairs: straighten.Pairs, place: Place) -> vae.Picture:
    decoder = vae.load(place)
    unpacked = vae.unscaled(decoder, pool.unpack(latents[None].float(), pairs.canvas))
    return vae.to_pictures(decoder.decoder(unpacked))[0]


@torch.no_grad()
def _distance(pairs: straighten.Pairs, place: Place, weights: str) -> float:
    """How far the model's guesses half-way are from the straight way."""
    model = transformer.load(place, weights)
    half = torch.full((len(pairs.captions),), 0.5)
    noisy = transformer.Noisy(pairs.canvas, pairs.latents.float(), pairs.noise.float(), half)
    reported = model.text(pairs.captions, 24)
    guess = transformer.velocity(model.net, noisy, reported, pairs.guidance, place)
    return float((guess - noisy.velocity).square().mean())
