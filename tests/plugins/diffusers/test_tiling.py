"""VAEs of every class in diffusers, decoding in tiles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from plugins.diffusers.tiny_vaes import SIZE, TILES, VAES, build, latents
from runner_diffusers.replay.views import view
from runner_diffusers.tiling import (
    Setting,
    Size,
    TilingError,
    set_tiles,
    settings,
)

IN_TIME = {"AutoencoderKLLTXVideo": 8, "AutoencoderKLLTX2Video": 16, "AutoencoderKLHunyuanVideo": 8}
FRAMES = {"AutoencoderKLMochi": 13, "AutoencoderKLQwenImage21": 1}


def tiled(vae: Any, space: Setting, time: Setting, height: int, width: int, frames: int = 1) -> Any:
    """A view of the VAE that decodes results of that size in tiles."""
    view = copy.copy(vae)
    for attribute, value in settings(
        type(vae).__name__, vae.config, space, time, Size(height, width, frames)
    ).items():
        setattr(view, attribute, value)
    return view


@pytest.mark.parametrize("name", TILES)
def test_the_size_is_known_from_the_latents(name: str) -> None:
    vae, frames = build(name), frames_of(name)
    expected = state(tiled(vae, TILES[name], "auto", *SIZE, frames))
    view = copy.copy(vae)
    set_tiles(view, latents(name, *SIZE, frames), TILES[name], "auto")
    assert state(view) == expected


def decoded(vae: Any, z: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        torch.manual_seed(0)
        out = vae.decode(z)
    sample = out if isinstance(out, torch.Tensor) else out.sample
    assert isinstance(sample, torch.Tensor)
    return sample


def frames_of(name: str) -> int:
    return 1 if VAES[name].frames is None else FRAMES.get(name, 17)


def state(vae: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(vae).items() if isinstance(value, bool | int | float | str)}


@pytest.mark.parametrize("name", TILES)
def test_tiles_of_space(name: str) -> None:
    vae, tile, frames = build(name), TILES[name], frames_of(name)
    z = latents(name, *SIZE, frames)
    before = state(vae)
    whole = decoded(tiled(vae, "off", "auto", *SIZE, frames), z)

    view = tiled(vae, tile, "auto", *SIZE, frames)
    pieces = decoded(view, z)

    assert pieces.shape == whole.shape
    assert whole.shape[-2:] == SIZE
    assert not torch.equal(pieces, whole)
    assert state(vae) == before
    assert next(view.parameters()) is next(vae.parameters())


@pytest.mark.parametrize("name", TILES)
def test_a_picture_within_one_tile_is_that_of_the_whole(name: str) -> None:
    vae, frames = build(name), frames_of(name)
    tile = TILES[name]
    z = latents(name, tile, tile, frames)

    in_tiles = decoded(tiled(vae, tile, "auto", tile, tile, frames), z)

    assert torch.equal(in_tiles, decoded(tiled(vae, "off", "auto", tile, tile, frames), z))


@pytest.mark.parametrize("name", TILES)
def test_sizes_that_leave_a_tile_of_one_number_of_the_latents(name: str) -> None:
    vae, tile, frames = build(name), TILES[name], frames_of(name)
    view = tiled(vae, tile, "auto", 4096, tile, frames)
    ratio = VAES[name].ratio
    stride = getattr(view, "tile_sample_stride_height", tile * 3 // 4)
    height = stride * 2 + ratio

    shape = decoded(tiled(vae, tile, "auto", height, tile, frames), latents(name, height, tile, frames)).shape

    assert shape[-2:] == (height, tile)


@pytest.mark.parametrize("name", VAES)
def test_auto_and_off_are_the_plain_decode_where_the_picture_is_small(name: str) -> None:
    if name in {"AutoencoderKLAllegro", "AutoencoderKLTemporalDecoder"}:
        pytest.skip("it cannot decode plainly")
    vae, frames = build(name), frames_of(name) if name != "AutoencoderKLHunyuanImageRefiner" else 1
    z = latents(name, *SIZE, frames)
    plain = decoded(vae, z)

    assert torch.equal(decoded(tiled(vae, "auto", "auto", *SIZE, frames), z), plain)
    if name not in {"AutoencoderKLMiniMaxH3", "AutoencoderKLHunyuanVideo"}:  # which decode in tiles unasked
        assert torch.equal(decoded(tiled(vae, "off", "off", *SIZE, frames), z), plain)


@pytest.mark.parametrize(("name", "tile"), IN_TIME.items())
@pytest.mark.parametrize("frames", [17, 33, 41])
def test_tiles_of_time(name: str, tile: int, frames: int) -> None:
    vae = build(name)
    every = VAES[name].frames
    assert every is not None
    frames = (frames - 1) // every * every + 1
    z = latents(name, 32, 32, frames)
    whole = decoded(tiled(vae, "off", "off", 32, 32, frames), z)

    pieces = decoded(tiled(vae, "off", tile, 32, 32, frames), z)
    both = decoded(tiled(vae, 32, tile, 32, 64, frames), latents(name, 32, 64, frames))

    assert pieces.shape == whole.shape
    assert pieces.shape[2] == frames
    assert not torch.equal(pieces, whole)
    # the first frames are those of the first tile alone, before the second is blended in
    assert both.shape[2:] == (frames, 32, 64)


def test_tiles_change_only_what_is_near_their_borders() -> None:
    """A convolution sees as far as its layers are deep; beyond that, a tile is the picture's own part."""
    name = "AutoencoderTiny"  # it has no layer that looks at the whole picture
    vae = build(name)
    z = latents(name, 256, 256)
    whole = decoded(vae, z)

    pieces = decoded(tiled(vae, 128, "auto", 256, 256), z)

    differs = (pieces - whole).abs().amax(dim=(0, 1)) > 1e-5
    assert not differs[:64, :64].any()
    assert differs[:, 112:128].any()


def test_no_stride_leaves_a_tile_that_cannot_be_reflected() -> None:
    config = VAES["AutoencoderKLLTX2Video"].config

    fits = settings("AutoencoderKLLTX2Video", config, 64, "off", Size(8 * 22, 8 * 21))

    assert (fits["tile_sample_stride_height"], fits["tile_sample_stride_width"]) == (48, 56)
    with pytest.raises(TilingError, match=r"a height of 56 .* 8 pixels alone: set 40"):
        settings("AutoencoderKLLTX2Video", config, 32, "off", Size(56, 64))


def test_hunyuan_video_decodes_in_tiles_of_time_unless_switched_off() -> None:
    name = "AutoencoderKLHunyuanVideo"
    vae, z = build(name), latents(name, 32, 32, 33)

    auto, off = (decoded(tiled(vae, "off", time, 32, 32, 33), z) for time in ("auto", "off"))

    assert torch.equal(auto, decoded(vae, z))
    assert not torch.equal(auto, off)
    vae.use_framewise_decoding = False
    assert torch.equal(off, decoded(vae, z))


@pytest.mark.parametrize("name", ["AutoencoderKLAllegro", "AutoencoderKLWan"])
def test_an_items_own_view_is_set_and_the_shared_vae_is_not(name: str) -> None:
    vae = build(name)
    own = view(vae, "vae", frozenset(), torch.device("cpu"), lambda *_: None)
    set_tiles(own, latents(name, 1160, 1280, 24), "auto", "auto")

    assert own.use_tiling
    assert not vae.use_tiling


def test_allegro_decodes_in_its_own_tiles_what_they_cover() -> None:
    name = "AutoencoderKLAllegro"  # tiles of 160 here, each 40 below and 80 right of the one before
    vae = build(name)
    z = torch.randn(1, 4, 6, 25, 30)

    clip = decoded(tiled(vae, "auto", "auto", 200, 240, 24), z)

    assert clip.shape == (1, 24, 3, 200, 240)
    assert clip.abs().amax(dim=(0, 1, 2)).min() > 0
    with pytest.raises(TilingError, match=r"height = 192: .* set 160 or 200"):
        tiled(vae, "auto", "auto", 192, 240, 24)
    with pytest.raises(TilingError, match=r"num_frames = 32: .* set 24 or 40"):
        tiled(vae, "auto", "auto", 200, 240, 32)
    with pytest.raises(TilingError, match="one size only"):
        tiled(vae, "off", "auto", 200, 240, 24)
    with pytest.raises(TilingError, match="24 frames only"):
        tiled(vae, "auto", "off", 200, 240, 24)
    assert not vae.use_tiling
