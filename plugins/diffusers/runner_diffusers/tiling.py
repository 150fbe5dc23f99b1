"""VAEs that decode in tiles of space and time: which sizes each class takes, and how they are set.

Imports no torch: the checks of parameters use the same table as the decoding. ``auto`` depends on the size
of the result alone, never on a budget: a class decodes in tiles when it would hold more than :data:`AT_ONCE`
pixels of its largest layers at once, and in one piece otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from runner_diffusers.vae_tiles import ALLEGRO, FRAMES, TABLE, UNTILED, frames_of_tile, is_vae

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner_diffusers.vae_tiles import Config, Tiles

Setting: TypeAlias = Literal["auto", "off"] | int
Parameter: TypeAlias = Literal["tiling", "temporal"]

CLIP_DIMENSIONS = 5  # of latents: batch, channels, frames, height, width
ALLEGRO_RATIO, ALLEGRO_FRAMES = (
    8,
    4,
)  # pixels and frames for each number of Allegro's latents, fixed in diffusers
AT_ONCE = 2048 * 2048  # pixels: a picture of 2048 x 2048, or 4 frames of 1280 x 720


class TilingError(ValueError):
    """A setting that this VAE cannot decode with: a sentence for the user."""

    def __init__(self, message: str, parameter: Parameter) -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Size:
    """Height and width in pixels of what is decoded, and its frames: 1 for a picture."""

    height: int
    width: int
    frames: int = 1


@dataclass(frozen=True)
class Granularity:
    """What sizes of tiles are multiples of: pixels and frames; None where the class has no such tiles."""

    space: int | None
    time: int | None


def granularity(vae: str, config: Config) -> Granularity:
    """What the settings of a VAE can be, from its class name and config."""
    tiles = TABLE.get(vae)
    if tiles is None:
        return Granularity(None, None)
    time = tiles.frame_ratio(config) if tiles.frame_ratio else None
    return Granularity(tiles.ratio(config) * tiles.step, time)


def problems(
    vae: str, config: Config, space: Setting, time: Setting, size: Size | None = None
) -> Iterator[TilingError]:
    """What is wrong with the settings, from the class name and config.json alone; the size may be unknown."""
    for resolve in (_time, _space):
        try:
            resolve(vae, config, time if resolve is _time else space, size)
        except TilingError as error:
            yield error


def settings(vae: str, config: Config, space: Setting, time: Setting, size: Size) -> dict[str, Any]:
    """Attributes of the VAE that make it decode so; those that are not named stay as they are.

    Raises:
        TilingError: this class of VAE cannot.

    """
    in_time = _time(vae, config, time, size)
    frames = size.frames
    if in_time.get("use_framewise_decoding") or (time == "auto" and _always(vae) == "time"):
        frames = min(frames, in_time.get("tile_sample_min_num_frames", FRAMES))
    return in_time | _space(vae, config, space, Size(size.height, size.width, frames))


def set_tiles(vae: Any, latents: Any, space: Setting, time: Setting) -> None:
    """Set an item's own view of a VAE so that it decodes these latents in tiles, or in one piece.

    Components that decode and are no VAE of pictures, such as vocoders, are left as they are.

    Raises:
        TilingError: this class of VAE cannot.

    """
    kinds = type(vae).__mro__  # a view is of a subclass
    kind = next((kind for kind in kinds if kind.__module__.startswith("diffusers.")), kinds[0]).__name__
    if latents is None or not is_vae(kind):
        return
    size = _decoded_size(kind, vae.config, latents.shape)
    for attribute, value in settings(kind, vae.config, space, time, size).items():
        setattr(vae, attribute, value)


def _decoded_size(vae: str, config: Config, latents: Sequence[int]) -> Size:
    """The size that latents decode to: (batch, channels, height, width), or with frames before these two."""
    frames = latents[-3] if len(latents) == CLIP_DIMENSIONS else 1
    if vae == ALLEGRO:
        return Size(latents[-2] * ALLEGRO_RATIO, latents[-1] * ALLEGRO_RATIO, frames * ALLEGRO_FRAMES)
    tiles = TABLE.get(vae)
    if tiles is None:
        return Size(latents[-2], latents[-1], frames)  # it has no tiles: nothing depends on it
    ratio, in_time = tiles.ratio(config), tiles.frame_ratio or _usual_frame_ratio
    return Size(latents[-2] * ratio, latents[-1] * ratio, (frames - 1) * in_time(config) + 1)


def _usual_frame_ratio(config: Config) -> int:
    """Frames for each frame of the latents, where the table has none: as stated, or as most have it."""
    return int(config.get("temporal_compression_ratio") or 4)


def _space(vae: str, config: Config, setting: Setting, size: Size | None) -> dict[str, Any]:
    """Attributes for tiles of space."""
    if vae == ALLEGRO:
        return _allegro(config, setting, size)
    tiles = TABLE.get(vae)
    if tiles is None:
        if isinstance(setting, int):
            reason = UNTILED.get(vae, "has no tiles that runner knows")
            raise TilingError(f'{vae} {reason}: leave tiling at "auto", or set "off"', "tiling")
        return {}
    if setting == "off":
        return {"use_tiling": False}
    ratio = tiles.ratio(config)
    step = ratio * tiles.step
    if isinstance(setting, int):
        _refuse_uneven(vae, setting, step, max(tiles.least * step, 2 * ratio), "tiling", "pixels")
        if size is None:
            return {}
        if setting >= max(size.height, size.width):  # diffusers would cut some classes' all the same
            return {"use_tiling": False}
        tile = setting
    elif size is None or tiles.always == "space" or _at_once(tiles, config, size) <= AT_ONCE:
        return {}
    else:
        tile = math.ceil(tiles.auto / step) * step
    chosen = tiles.space(tile, ratio)
    return chosen | _strides_without_rest(vae, chosen, size, ratio) if tiles.pads_by_reflection else chosen


def _strides_without_rest(vae: str, chosen: dict[str, Any], size: Size, ratio: int) -> dict[str, Any]:
    """The strides next to those chosen that leave no tile of one number alone, which cannot be reflected."""
    strides = {}
    for side, length in (("height", size.height), ("width", size.width)):
        name, numbers = f"tile_sample_stride_{side}", length // ratio
        tile, stride = chosen[f"tile_sample_min_{side}"] // ratio, chosen[name] // ratio
        possible = [*range(stride, 1, -1), *range(stride + 1, tile), *([tile] if numbers <= tile else [])]
        fitting = [one for one in possible if numbers <= one or (numbers - 1) % one]
        if not fitting:
            raise TilingError(
                f"tiling = {tile * ratio}: {vae} cannot cut a {side} of {length} into such tiles: the "
                f"last would be {ratio} pixels alone: set {(tile + 1) * ratio}, or another {side}",
                "tiling",
            )
        strides[name] = fitting[0] * ratio
    return strides


def _time(vae: str, config: Config, setting: Setting, size: Size | None) -> dict[str, Any]:
    """Attributes for tiles of time."""
    tiles = TABLE.get(vae)
    if vae == ALLEGRO and setting != "auto":
        raise TilingError(f'{vae} decodes in tiles of 24 frames only: leave temporal at "auto"', "temporal")
    if tiles is None or tiles.frame_ratio is None:
        if isinstance(setting, int):
            raise TilingError(
                f'{vae} has no tiles of time: leave temporal at "auto", and set tiling to use less memory'
                if tiles
                else f'{vae} has no tiles of time: leave temporal at "auto"',
                "temporal",
            )
        return {}
    if setting == "off":
        return {"use_framewise_decoding": False}
    ratio = tiles.frame_ratio(config)
    if isinstance(setting, int):
        _refuse_uneven(vae, setting, ratio, 2 * ratio, "temporal", "frames")
        return frames_of_tile(setting, ratio)
    if size is None or tiles.always == "time" or _at_once(tiles, config, size) <= AT_ONCE:
        return {}
    return frames_of_tile(max(2 * ratio, math.ceil(FRAMES / ratio) * ratio), ratio)


def _always(vae: str) -> str:
    return TABLE[vae].always if vae in TABLE else ""


def _at_once(tiles: Tiles, config: Config, size: Size) -> int:
    """Pixels that the largest layers hold at once, without tiles."""
    frames = size.frames if tiles.batch is None else min(size.frames, tiles.batch)
    patch = int(config.get("patch_size") or 1) if tiles.patches else 1
    return size.height * size.width * frames // patch**2


def _refuse_uneven(vae: str, size: int, step: int, least: int, parameter: Parameter, unit: str) -> None:
    """Refuse a size with which diffusers would make a result of the wrong size, or none."""
    if size % step == 0 and size >= least:
        return
    below = size // step * step
    near = [str(one) for one in (below, below + step) if one >= least] or [str(least)]
    raise TilingError(
        f"{parameter} = {size}: {vae} takes tiles of a multiple of {step} {unit}, {least} or more: "
        f"set {' or '.join(near)}",
        parameter,
    )


def _allegro(config: Config, setting: Setting, size: Size | None) -> dict[str, Any]:
    """Tiles of one size alone; what they do not cover stays black in diffusers, so it is refused."""
    if setting != "auto":
        raise TilingError(
            f'{ALLEGRO} decodes in tiles of one size only, that of its config.json: leave tiling at "auto"',
            "tiling",
        )
    tile = int(config.get("sample_size", 320))
    if size is not None:
        _refuse_uncovered("height", size.height, tile, overlap=120)
        _refuse_uncovered("width", size.width, tile, overlap=80)
        _refuse_uncovered("num_frames", size.frames, 24, overlap=8)
    return {"use_tiling": True}


def _refuse_uncovered(name: str, length: int, tile: int, *, overlap: int) -> None:
    stride = tile - overlap
    if length >= tile and (length - tile) % stride == 0:
        return
    below = max(0, length - tile) // stride * stride + tile
    raise TilingError(
        f"{name} = {length}: the tiles of {ALLEGRO} cover {tile}, {tile + stride}, {tile + 2 * stride} and "
        f"so on, and leave the rest black: set {below} or {below + stride}",
        "tiling",
    )
