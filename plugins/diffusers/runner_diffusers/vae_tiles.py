"""Classes of VAEs in diffusers 0.42: how tiles are set on each, and what their sizes are multiples of.

Imports no torch. ``enable_tiling`` is not used: it has other arguments in each class, and leaves undone what
some of them need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Config: TypeAlias = Mapping[str, Any]

FRAMES = 16  # of a tile of time, for "auto"
ALLEGRO = "AutoencoderKLAllegro"


@dataclass(frozen=True)
class Tiles:
    """How a class of VAE decodes in tiles."""

    ratio: Callable[[Config], int]
    """Pixels for each number of the latents, in height and width."""
    space: Callable[[int, int], dict[str, Any]]
    """The attributes that set a tile's size in pixels, from that size and the ratio."""
    auto: int
    """The size in pixels of the tiles of "auto": diffusers' own, or near it."""
    step: int = 1
    """Tiles are multiples of so many numbers of the latents, so that their overlap is a whole number too."""
    least: int = 1
    """The smallest tile, in steps; never less than two numbers of the latents."""
    pads_by_reflection: bool = False
    """Whether a tile of a single number of the latents cannot be decoded."""
    frame_ratio: Callable[[Config], int] | None = None
    """Frames for each frame of the latents, if the class decodes in tiles of time."""
    batch: int | None = None
    """Frames that are decoded at once; all of them if None."""
    patches: bool = False
    """Whether its layers see patches of ``patch_size`` pixels as one, so that they hold so much less."""
    always: Literal["", "space", "time"] = ""
    """Tiles that diffusers has switched on from the start, which "auto" leaves so."""


def frames_of_tile(frames: int, ratio: int) -> dict[str, Any]:
    """Tiles of time that overlap by a quarter, or the next more in whole frames of the latents."""
    return {
        "use_framewise_decoding": True,  # enable_tiling does not set it
        "tile_sample_min_num_frames": frames,
        "tile_sample_stride_num_frames": frames * 3 // 4 // ratio * ratio,
    }


def _square(tile: int, ratio: int, overlap: float = 0.25) -> dict[str, Any]:
    return {
        "use_tiling": True,
        "tile_sample_min_size": tile,
        "tile_latent_min_size": tile // ratio,
        "tile_overlap_factor": overlap,
    }


def _strides(tile: int, ratio: int, overlap: float = 0.25) -> dict[str, Any]:
    """Tiles with a stride: they overlap by this share, or the next more in whole numbers of the latents."""
    stride = int(tile * (1 - overlap)) // ratio * ratio
    return _sides("tile_sample_min", tile) | _sides("tile_sample_stride", stride)


def _strides_and_latents(tile: int, ratio: int) -> dict[str, Any]:
    return _strides(tile, ratio, 0.125) | _sides("tile_latent_min", tile // ratio)


def _factors(tile: int, ratio: int) -> dict[str, Any]:
    return (
        _sides("tile_sample_min", tile)
        | _sides("tile_latent_min", tile // ratio)
        | _sides("tile_overlap_factor", 0.25)
    )


def _factor(tile: int, ratio: int) -> dict[str, Any]:
    sides = _sides("tile_sample_min", tile) | _sides("tile_latent_min", tile // ratio)
    return sides | {"tile_overlap_factor": 0.25}


def _overlaps(tile: int, ratio: int) -> dict[str, Any]:
    overlap = math.ceil(tile / 4 / ratio) * ratio
    return _sides("tile_sample_min", tile) | _sides("tile_sample_min_overlap", overlap)


def _sides(attribute: str, value: float) -> dict[str, Any]:
    return {"use_tiling": True, f"{attribute}_height": value, f"{attribute}_width": value}


def _halvings(config: Config, *, of: str, default: int) -> int:
    """The ratio of a VAE with a list of levels, each but the first of which halves the size."""
    return int(2 ** (len(config[of]) - 1 if config.get(of) else default))


def _stated(config: Config, *, key: str, default: int) -> int:
    return int(config.get(key) or default)


def _ltx(config: Config, *, key: str, patch: str, patches: int, levels: int) -> int:
    """The ratio as its config states it, or as diffusers works it out."""
    scaling = config.get("spatio_temporal_scaling")
    halved = levels if scaling is None else sum(scaling) if isinstance(scaling, list | tuple) else levels
    return int(config.get(key) or (config.get(patch) or patches) * 2**halved)


def _vidtok(config: Config) -> int:
    halved = config.get("spatial_ds")
    return int(2 ** (len(config.get("ch_mult") or (1, 2, 4, 4)) - 1 if halved is None else len(halved)))


_KL = Tiles(partial(_halvings, of="block_out_channels", default=0), _square, auto=1024, step=4)
_WAN = Tiles(
    partial(_stated, key="scale_factor_spatial", default=8), _strides, auto=256, batch=4, patches=True
)
_SPACE, _TIME = "spatial_compression_ratio", "temporal_compression_ratio"

TABLE: Mapping[str, Tiles] = {
    "AutoencoderKL": _KL,
    "AutoencoderKLFlux2": _KL,
    "AutoencoderKLKVAE": replace(_KL, ratio=partial(_halvings, of="ch_mult", default=3)),
    # its ratio is 8 whatever the config says, and its overlap must be a whole number of the latents
    "AutoencoderTiny": Tiles(lambda _: 8, partial(_square, overlap=0.125), auto=512, step=8),
    "AutoencoderDC": Tiles(
        partial(_halvings, of="encoder_block_out_channels", default=5), _strides_and_latents, auto=512
    ),
    "AutoencoderKLWan": _WAN,
    "AutoencoderKLQwenImage": replace(
        _WAN, ratio=lambda config: 2 ** len(config.get("temperal_downsample") or "123")
    ),
    "AutoencoderKLQwenImage21": replace(_WAN, ratio=partial(_stated, key="scale_factor_spatial", default=16)),
    "AutoencoderKLLTXVideo": Tiles(
        partial(_ltx, key=_SPACE, patch="patch_size", patches=4, levels=3),
        partial(_strides, overlap=0.125),
        auto=512,
        patches=True,
        frame_ratio=partial(_ltx, key=_TIME, patch="patch_size_t", patches=1, levels=3),
    ),
    "AutoencoderKLLTX2Video": Tiles(
        partial(_ltx, key=_SPACE, patch="patch_size", patches=4, levels=4),
        partial(_strides, overlap=0.125),
        auto=512,
        patches=True,
        least=4,
        pads_by_reflection=True,
        frame_ratio=partial(_ltx, key=_TIME, patch="patch_size_t", patches=1, levels=4),
    ),
    "AutoencoderKLMagvit": Tiles(
        partial(_halvings, of="block_out_channels", default=3),
        partial(_strides, overlap=0.125),
        auto=512,
        batch=4,
    ),
    "AutoencoderKLHunyuanVideo": Tiles(
        partial(_stated, key=_SPACE, default=8),
        _strides,
        auto=256,
        frame_ratio=partial(_stated, key=_TIME, default=4),
        always="time",
    ),
    "AutoencoderKLHunyuanVideo15": Tiles(partial(_stated, key=_SPACE, default=16), _factor, auto=256, step=4),
    "AutoencoderKLHunyuanImage": Tiles(partial(_stated, key=_SPACE, default=32), _square, auto=1024, step=4),
    # diffusers' own overlaps, a sixth of the height and a fifth of the width, suit few sizes
    "AutoencoderKLCogVideoX": Tiles(
        partial(_halvings, of="block_out_channels", default=3), _factors, auto=256, step=4, batch=8
    ),
    "AutoencoderKLMochi": Tiles(
        lambda config: math.prod(config.get("spatial_expansions") or (2, 2, 2)), _strides, auto=256
    ),
    "AutoencoderVidTok": Tiles(_vidtok, _factors, auto=256, step=4),
    "AutoencoderKLMiniMaxH3": Tiles(
        lambda config: math.prod(config.get("spatial_downsample_factors") or (2, 2, 2, 2)),
        _overlaps,
        auto=256,
        always="space",
    ),
}

UNTILED: Mapping[str, str] = {
    "AutoencoderKLCosmos": "takes no notice of tiles when it decodes",
    "AutoencoderKLHunyuanImageRefiner": "makes pictures of the wrong size in tiles",
    "AutoencoderKLKVAEVideo": "has no tiles, and decodes 16 frames at once",
    "Kandinsky6SRVAE": "has no tiles, and decodes 16 frames at once",
    "AutoencoderKLTemporalDecoder": "has no tiles; decode_chunk_size is how many frames it decodes at once",
    "AsymmetricAutoencoderKL": "has no tiles",
    "ConsistencyDecoderVAE": "has no tiles when it decodes",
    "VQModel": "has no tiles",
    "AutoencoderRAE": "has no tiles",
    "AutoencoderOobleck": "makes sound, which has no size in pixels",
}


def is_vae(name: str) -> bool:
    """Whether a class is a VAE whose tiles are known, or known not to exist."""
    return name in TABLE or name in UNTILED or name == ALLEGRO
