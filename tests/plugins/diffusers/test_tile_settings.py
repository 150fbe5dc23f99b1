"""Settings of VAEs for tiles: which are known, which are refused, and what `auto` chooses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import diffusers
import pytest
from plugins.diffusers.tiny_vaes import SIZE, TILES, VAES, build, granularity_of
from runner_diffusers.tiling import AT_ONCE, Granularity, Size, TilingError, granularity, problems, settings
from runner_diffusers.vae_tiles import TABLE, UNTILED


@pytest.mark.parametrize("name", sorted({name.partition(" ")[0] for name in VAES} - set(TABLE)))
def test_classes_without_tiles_refuse_sizes_alone(name: str) -> None:
    config = VAES[name].config

    if name != "AutoencoderKLAllegro":
        assert settings(name, config, "auto", "auto", Size(4096, 4096)) == {}
    (error, other) = problems(name, config, 256, 16)

    assert {error.parameter, other.parameter} == {"tiling", "temporal"}
    assert all(name in str(one) and 'at "auto"' in str(one) for one in (error, other))


@pytest.mark.parametrize("name", sorted(TILES))
def test_other_sizes_than_multiples_are_refused_with_the_next(name: str) -> None:
    kind, config = name.partition(" ")[0], VAES[name].config
    step = granularity_of(name)

    (error,) = problems(kind, config, 4 * step + 1, "auto")

    assert error.parameter == "tiling"
    assert f"multiple of {step} pixels" in str(error)
    assert f"set {4 * step} or {5 * step}" in str(error)
    assert not list(problems(kind, config, 4 * step, "auto"))
    with pytest.raises(TilingError):
        settings(kind, config, step - 1, "auto", Size(*SIZE))


@pytest.mark.parametrize("name", sorted(TILES))
def test_the_table_has_the_ratios_of_the_classes(name: str) -> None:
    vae = build(name)
    tiles = TABLE[name.partition(" ")[0]]

    assert tiles.ratio(VAES[name].config) == tiles.ratio(vae.config) == VAES[name].ratio
    if tiles.frame_ratio:
        assert tiles.frame_ratio(VAES[name].config) == VAES[name].frames


def test_sizes_of_time_are_multiples_too() -> None:
    config = VAES["AutoencoderKLHunyuanVideo"].config

    assert granularity("AutoencoderKLHunyuanVideo", config) == Granularity(8, 4)
    assert granularity("VQModel", {}) == Granularity(None, None)
    (error,) = problems("AutoencoderKLHunyuanVideo", config, "auto", 18)
    assert (error.parameter, "set 16 or 20" in str(error)) == ("temporal", True)
    (error,) = problems("AutoencoderKLWan", {}, "auto", 16)
    assert "no tiles of time" in str(error)


@pytest.mark.parametrize(
    ("vae", "config", "size", "in_space", "in_time"),
    [
        ("AutoencoderKL", {"block_out_channels": [1] * 4}, Size(2048, 2048), False, False),
        ("AutoencoderKL", {"block_out_channels": [1] * 4}, Size(2056, 2048), True, False),
        ("AutoencoderKLWan", {}, Size(720, 1280, 81), False, False),  # 4 frames at once
        ("AutoencoderKLWan", {}, Size(1088, 1920, 81), True, False),
        ("AutoencoderKLCogVideoX", {}, Size(480, 720, 49), False, False),
        ("AutoencoderKLHunyuanVideo", {}, Size(320, 512, 129), False, False),  # in tiles of time, as ever
        ("AutoencoderKLHunyuanVideo", {}, Size(720, 1280, 129), True, False),
        ("AutoencoderKLLTXVideo", {"patch_size": 4}, Size(512, 768, 161), False, False),
        ("AutoencoderKLLTXVideo", {"patch_size": 4}, Size(704, 1216, 161), False, True),
        ("AutoencoderKLMochi", {}, Size(480, 848, 85), True, False),
    ],
)
def test_auto_depends_on_the_size(
    vae: str, config: dict[str, Any], size: Size, in_space: bool, in_time: bool
) -> None:
    chosen = settings(vae, config, "auto", "auto", size)

    assert chosen.get("use_tiling", False) is in_space
    assert chosen.get("use_framewise_decoding", False) is in_time
    assert settings(vae, config, "off", "off", size).get("use_tiling", False) is False
    assert AT_ONCE == 2048 * 2048


def test_every_class_with_tiles_is_known() -> None:
    with_tiles = {
        name
        for name in dir(diffusers)
        if name.startswith(("Autoencoder", "Asymmetric", "Consistency", "VQ"))
        and hasattr(getattr(diffusers, name), "enable_tiling")
    }

    audio = {name for name in with_tiles if "Audio" in name}
    assert with_tiles - audio - set(TABLE) - set(UNTILED) - {"AutoencoderKLAllegro"} == set()


def test_checks_import_no_torch() -> None:
    code = (
        "import runner_diffusers.tiling, sys; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)
