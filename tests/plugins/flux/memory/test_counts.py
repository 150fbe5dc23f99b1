"""What the formulas count besides peaks: tokens, passes and bytes on the disk, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from flux_stages import sizes
from runner_flux import memory
from runner_flux.params import Decode, Diffuse, Encode


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_encode(dtype: str, size: int) -> None:
    reported = sizes("flux", dtype)
    one = memory.encode(Encode(prompt="a", max_sequence_length=100), reported)
    # CLIP's 768 numbers and T5's 4096 a token
    assert (one.tokens, one.passes, one.output_bytes) == (100, 1, (768 + 100 * 4096) * size)
    both = memory.encode(Encode(prompt="a", negative_prompt="", max_sequence_length=100), reported)
    assert (both.tokens, both.passes, both.output_bytes) == (100, 2, 2 * (768 + 100 * 4096) * size)
    saved = memory.encode(
        Encode(prompt="a", max_sequence_length=100), replace(reported, save_dtype="bfloat16")
    )
    assert saved.output_bytes == (768 + 100 * 4096) * 2
    assert (saved.peak, saved.suspended) == (one.peak, one.suspended)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("bfloat16", 2)])
def test_diffuse(dtype: str, size: int) -> None:
    reported = sizes("flux", dtype, prompt_embeds=Encode(prompt="a", max_sequence_length=77))
    alone = memory.diffuse(Diffuse(height=512, width=256, steps=7), reported)
    # a token is 16 x 16 pixels: 32 x 16 of them, with 64 numbers each, and 77 of text
    assert (alone.tokens, alone.passes, alone.output_bytes) == (32 * 16 + 77, 7, 32 * 16 * 64 * size)
    guided = memory.diffuse(Diffuse(height=512, width=256, steps=7, true_cfg_scale=2.0), reported)
    assert (guided.tokens, guided.passes, guided.output_bytes) == (alone.tokens, 14, alone.output_bytes)
    assert memory.diffuse(Diffuse(height=512, width=256, steps=7, true_cfg_scale=1.0), reported).passes == 7
    saved = memory.diffuse(Diffuse(height=512, width=256, steps=7), replace(reported, save_dtype="float32"))
    assert saved.output_bytes == 32 * 16 * 64 * 4
    # of a text of unknown length, the most
    assert memory.diffuse(Diffuse(height=512, width=256), sizes("flux", dtype)).tokens == 32 * 16 + 512


def test_decode() -> None:
    reported = sizes("flux", "float32", latents=Diffuse(height=512, width=256))
    assert memory.decode(Decode(), reported).output_bytes == 3 * 512 * 256
    assert memory.decode(Decode(), sizes("flux", "float32")).output_bytes == 3 * 1024 * 1024
