"""The autoencoder: pictures to 16 channels at 1/8 of the side, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from .scenes import CANVASES, SIDE, draw_scene, lay_out, paint
from .scorer import judge
from .training import Place, Schedule, fit, generator_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .scenes import Picture

LATENT_CHANNELS = 16
CROP = 64  # pixels: most of the training uses crops that contain a thing
NOISE = 0.2  # standard deviation at most, added to the latents, to make the decoder robust


def build() -> AutoencoderKL:
    """An untrained autoencoder in FLUX's geometry, small.

    Two groups in the norms and the initialisation below: with more groups and torch's own initialisation the
    colours are lost in the depth and training stays stuck at 11 dB.
    """
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=128,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        force_upcast=False,
    )
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            torch.nn.init.zeros_(cast("Tensor", module.bias))
            if name.endswith("conv2"):  # the last of a residual branch
                module.weight.data.mul_(0.3)
    with torch.no_grad():  # the posterior's variance is no part of the training: constant, and small
        vae.encoder.conv_out.weight[LATENT_CHANNELS:].zero_()
        vae.encoder.conv_out.bias[LATENT_CHANNELS:].fill_(-6.0)
    return vae.to(memory_format=torch.channels_last)


def to_tensor(pictures: Sequence[Picture], device: torch.device) -> Tensor:
    """Pictures of one size as batch x 3 x height x width in -1..1."""
    pixels = torch.from_numpy(np.stack(pictures)).to(device).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_pictures(pixels: Tensor) -> list[Picture]:
    """The inverse of to_tensor."""
    whole = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(whole.permute(0, 2, 3, 1).cpu().numpy())


def train(plan: Schedule, place: Place) -> None:
    """Train the autoencoder and save it, with the latents' scale and shift in its configuration."""
    torch.manual_seed(place.seed)
    vae = build().to(place.device)
    groups = [{"params": list(vae.parameters())}]
    fit("vae", vae, groups, lambda *at: _loss(vae, place, plan, *at), plan, place)
    _standardise(vae, place)
    vae.save_pretrained(place.result("vae"))


def ceiling(place: Place, count: int) -> float:
    """The share of ground-truth pictures that are right after the autoencoder: the score's upper bound."""
    vae, rng = load(place), generator_of(place.seed, "ceiling", 0)
    scenes = [draw_scene(rng, for_scoring=True) for _ in range(count)]
    right = 0
    for scene in scenes:
        pixels = to_tensor([paint(scene, lay_out(scene, rng))], place.device)
        with torch.no_grad():
            (picture,) = to_pictures(vae.decoder(encode(vae, pixels)))
        right += judge(picture, scene).right
    return right / count


def load(place: Place) -> AutoencoderKL:
    """The trained autoencoder, in channels-last layout (faster on CPU)."""
    vae = AutoencoderKL.from_pretrained(place.result("vae"))
    return vae.to(device=place.device, memory_format=torch.channels_last)


def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """The latents' mean: batch x 16 x height/8 x width/8, as they leave the encoder."""
    return cast("Tensor", vae.encoder(pixels)[:, :LATENT_CHANNELS].float())


def scaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents as the transformer sees them."""
    return cast("Tensor", (latents - vae.config.shift_factor) * vae.config.scaling_factor)


def unscaled(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """The inverse of scaled: latents as the decoder takes them."""
    return cast("Tensor", latents / vae.config.scaling_factor + vae.config.shift_factor)


def _loss(
    vae: AutoencoderKL, place: Place, plan: Schedule, step: int, rng: np.random.Generator
) -> tuple[Tensor, dict[str, float]]:
    pixels = to_tensor(_batch(rng, whole=step > 0.85 * plan.steps), place.device)
    with place.autocast():
        latents = encode(vae, pixels)
        strength = NOISE * torch.rand(len(latents), 1, 1, 1) ** 2
        noise = strength * torch.randn(latents.shape)
        decoded = vae.decoder(latents + noise.to(place.device))
    decoded = decoded.float()
    error, weight = decoded - pixels, _edges(pixels)
    ramp = min(1.0, step / 400)  # first the colours, then the edges
    loss = (weight * error.abs()).mean() + 2 * (weight * error**2).mean()
    loss = loss + ramp * sum(slope.abs().mean() for slope in _slopes(error))
    loss = loss + 0.05 * _far_from_standard(latents)
    return loss, {"db": 10 * math.log10(4 / error.detach().square().mean().item())}


def _far_from_standard(latents: Tensor) -> Tensor:
    """How far each channel is from mean 0 and deviation 1, with no outliers."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    outliers = functional.relu(latents.abs() - 3).square().mean()
    return mean.square().mean() + (deviation - 1).square().mean() + 0.1 * outliers


def _slopes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]


@torch.no_grad()
def _edges(pixels: Tensor) -> Tensor:
    """Weights that favour the outlines: .5 on plain ground, 3 within two pixels of an edge."""
    across, down = ((slope.abs().sum(1, keepdim=True) > 0.12).float() for slope in _slopes(pixels))
    edge = torch.maximum(functional.pad(across, (0, 1)), functional.pad(down, (0, 0, 0, 1)))
    return 0.5 + 2.5 * functional.max_pool2d(edge, 5, 1, 2)


def _batch(rng: np.random.Generator, *, whole: bool) -> list[Picture]:
    """Whole pictures of one canvas (the borders count too), or crops around the things."""
    pictures: list[Picture] = []
    canvas = CANVASES[rng.choice(len(CANVASES), p=[0.8, 0.1, 0.1])] if whole else CANVASES[0]
    while len(pictures) < (3 if whole else 8):
        scene = draw_scene(rng)
        spots = lay_out(scene, rng, canvas)
        picture = paint(scene, spots, canvas)
        if whole:
            pictures.append(picture)
            continue
        for spot in spots:
            corner = np.array([spot.x, spot.y]) - CROP / 2 + rng.integers(-16, 17, 2)
            left, top = np.clip(corner, 0, SIDE - CROP).astype(int)
            pictures.append(picture[top : top + CROP, left : left + CROP])
    return pictures if whole else pictures[:8]


@torch.no_grad()
def _standardise(vae: AutoencoderKL, place: Place) -> None:
    """Give every latent channel deviation 1, in the weights (exact); the common mean becomes the shift."""
    rng = generator_of(place.seed, "vae-scale", 0)
    pixels = []
    for _ in range(128):
        scene = draw_scene(rng)
        pixels.append(paint(scene, lay_out(scene, rng)))
    latents = encode(vae, to_tensor(pixels, place.device))
    deviation = latents.std((0, 2, 3))
    vae.encoder.conv_out.weight[:LATENT_CHANNELS] /= deviation[:, None, None, None]
    vae.encoder.conv_out.bias[:LATENT_CHANNELS] /= deviation
    vae.decoder.conv_in.weight *= deviation[None, :, None, None]
    latents = latents / deviation[None, :, None, None]
    vae.register_to_config(
        scaling_factor=round(1 / latents.std().item(), 4), shift_factor=round(latents.mean().item(), 4)
    )
