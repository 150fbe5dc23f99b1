"""What decoding holds, from latents to the picture in a PNG file."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from flux_stages import CONFIGS, Context, holds, instead, latents, measured, sizes, started
from live_bytes import LiveBytes
from runner_flux import decode, memory
from runner_flux.params import Decode, Diffuse

from runner.api import workspaces


@pytest.mark.usefixtures("tensors_alone")
@pytest.mark.parametrize(
    ("configs", "dtype", "height", "width", "tiling"),
    [
        ("flux", "bfloat16", 1024, 1024, "auto"),
        ("flux", "float32", 1024, 1024, "auto"),
        ("flux", "bfloat16", 2048, 1360, "off"),
        ("flux", "float32", 16, 16, "auto"),
        ("flux", "bfloat16", 160, 144, 128),
        ("flux", "float32", 96, 256, 192),
        ("demo", "bfloat16", 1024, 768, "auto"),
        ("narrow", "float32", 96, 208, 128),  # the pixels on their way to a PNG
        ("narrow", "bfloat16", 96, 208, 128),
    ],
)
def test_decode_holds_what_is_predicted(
    configs: str, dtype: str, height: int, width: int, tiling: str | int
) -> None:
    params = Decode.model_validate({"tiling": tiling})
    drawn = Diffuse(height=height, width=width)
    live = measured(decode, params, configs, dtype, latents(height, width))
    holds(memory.decode(params, sizes(configs, dtype, latents=drawn)).peak, live)


@pytest.mark.usefixtures("tensors_alone")
@pytest.mark.parametrize(
    ("configs", "dtype", "tiling"),
    [
        ("flux", "bfloat16", "off"),
        ("narrow", "float32", "off"),
        ("narrow", "bfloat16", 128),  # tiles, rows and picture at once
    ],
)
def test_on_a_card_pixels_leave_for_ram(
    monkeypatch: pytest.MonkeyPatch, configs: str, dtype: str, tiling: str | int
) -> None:
    instead(monkeypatch, "pt_to_numpy", lambda pixels: pixels)
    instead(monkeypatch, "numpy_to_pil", lambda pixels: [pixels])
    params = Decode.model_validate({"tiling": tiling})
    live = measured(decode, params, configs, dtype, latents(96, 208), on_a_card=True)
    holds(
        memory.decode(params, sizes(configs, dtype, "cuda", latents=Diffuse(height=96, width=208))).peak, live
    )


def test_numpy_holds_what_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way from pixels to a PNG picture, on real arrays."""
    monkeypatch.setattr(memory, "_convolution", lambda *_, **__: 0)  # what that takes depends on the CPU
    peaks = []
    to_pil = VaeImageProcessor.numpy_to_pil

    def traced(pixels: Any) -> Any:
        tracemalloc.start()
        made = to_pil(pixels)
        peaks.append(live.now + tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return made

    instead(monkeypatch, "numpy_to_pil", traced)
    for dtype in ("float32", "bfloat16"):
        with torch.inference_mode():
            context = Context(CONFIGS["narrow"], dtype)
            modules, one, item = started(decode, Decode(tiling=128), context, latents(192, 192))
            with LiveBytes(modules) as live:
                one(item)
        predicted = memory.decode(
            Decode(tiling=128), sizes("narrow", dtype, latents=Diffuse(height=192, width=192))
        ).peak
        assert live.peak < peaks[-1] <= predicted <= 1.02 * peaks[-1] + memory.SCALARS


def test_a_picture_of_unknown_size_is_of_the_largest_need() -> None:
    """As ``decode`` says: up to 50 million pixels, in tiles where there are more than 1024 x 1024."""
    for device in ("cpu", "cuda"):
        for dtype in ("float32", "bfloat16"):
            unknown = memory.decode(Decode(), sizes("flux", dtype, device)).peak
            for height, width in ((1024, 1024), (2048, 512), (1040, 1040), (4096, 4096), (7040, 7040)):
                known = sizes("flux", dtype, device, latents=Diffuse(height=height, width=width))
                assert memory.decode(Decode(), known).peak <= unknown


def test_what_convolutions_take_depends_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN has none in bfloat16 without AVX-512 or the like, and with AMX it lays its results out twice."""
    reported = sizes("flux", "bfloat16", latents=Diffuse())
    needs = []
    for flags in ("", "avx512bw", "avx512bw amx_bf16"):
        monkeypatch.setattr(workspaces, "_flags", lambda flags=flags: frozenset(flags.split()))
        needs.append(memory.decode(Decode(), reported).peak)
    unfolded, blocked, tiled = needs
    assert unfolded > 2.5 * blocked
    assert 1.1 * blocked < tiled < 1.5 * blocked
