"""The decode stage: latents to a picture with the VAE, in tiles if the picture is large."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor

from runner_flux.tiles import tile_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL import Image

    from runner.api import Context, Item

COMPONENTS = (AutoencoderKL,)


def start(ctx: Context) -> Callable[[Item], dict[str, Image.Image]]:
    """Load the VAE; the returned function decodes one item's (C, H, W) latents."""
    vae = ctx.load("vae")
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    processor = VaeImageProcessor(vae_scale_factor=2 * scale)

    def one(item: Item) -> dict[str, Image.Image]:
        latents = item.inputs["latents"][None].to(ctx.device, ctx.dtype)
        latents = latents / vae.config.scaling_factor + vae.config.shift_factor
        height, width = latents.shape[-2] * scale, latents.shape[-1] * scale
        decoder = tiled(vae, tile_size(item.params.tiling, height, width), scale)
        pixels = decoder.decode(latents, return_dict=False)[0]
        item.check_finite("image", pixels)
        return {"image": processor.postprocess(pixels, output_type="pil")[0]}

    return one


def tiled(vae: Any, tile: int | None, scale: int) -> Any:
    """A copy of the VAE that shares its weights and decodes in tiles of ``tile`` pixels, or untiled.

    The size must be set: the default of FLUX.1's VAE is 1024, so that `enable_tiling()` alone has no effect
    at 1024 pixels.
    """
    view = copy.copy(vae)
    view.use_tiling = tile is not None
    if tile is not None:
        view.tile_sample_min_size = tile
        view.tile_latent_min_size = tile // scale
    return view
