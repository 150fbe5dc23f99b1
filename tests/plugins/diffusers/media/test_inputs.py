"""An item's files as the pipeline's keywords take them, and results as parts of a file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from runner_diffusers.media.inputs import read_files
from runner_diffusers.media.results import result_of
from runner_diffusers.media.writing import Result, encoded
from runner_diffusers.pipelines import source
from runner_diffusers.pipelines.signature import keywords

if TYPE_CHECKING:
    from pathlib import Path

    from runner_diffusers.pipelines.signature import Keyword


def keyword(pipeline: str, name: str) -> Keyword:
    cls = source.find(pipeline)
    assert cls is not None
    return next(one for one in keywords(cls) if one.name == name)


@pytest.mark.parametrize(
    ("pipeline", "mode"), [("QwenImageLayeredPipeline", "RGBA"), ("QwenImageEditPipeline", "RGB")]
)
def test_transparency_is_kept_where_the_pipeline_takes_it(tmp_path: Path, pipeline: str, mode: str) -> None:
    for name, stored in (("glass", "RGBA"), ("plain", "RGB")):
        Image.new(stored, (4, 2)).save(tmp_path / f"{name}.png")
    notes: list[str] = []

    read = [
        read_files(keyword(pipeline, "image"), tmp_path / f"{name}.png", notes.append)
        for name in ("glass", "plain")
    ]

    assert [one.mode for one in read] == [mode, mode]
    assert notes == ([] if mode == "RGBA" else ["glass.png: its transparent parts become white"])


@pytest.mark.parametrize(
    ("pipeline", "name", "shape"),
    [
        ("StableAudioPipeline", "initial_audio_waveforms", (1, 2, 400)),
        ("StableAudio3AudioToAudioPipeline", "audio", (1, 2, 400)),
        ("StableAudio3InpaintPipeline", "audio", (1, 2, 400)),
        ("AceStepPipeline", "src_audio", (2, 400)),
        ("AceStepPipeline", "reference_audio", (2, 400)),
    ],
)
def test_sound_has_the_dimensions_that_the_pipeline_takes(
    tmp_path: Path, pipeline: str, name: str, shape: tuple[int, ...]
) -> None:
    samples = np.stack([np.linspace(-0.5, 0.5, 400), np.zeros(400)]).astype(np.float32)
    (tmp_path / "a.wav").write_bytes(encoded(Result(sound=samples, rate=8_000), "wav").data)

    read = read_files(keyword(pipeline, name), tmp_path / "a.wav", print)

    assert tuple(read.shape) == shape
    np.testing.assert_allclose(read.reshape(2, 400).numpy(), samples, atol=1e-4)


@pytest.mark.parametrize("pipeline", ["StableAudioPipeline", "AceStepPipeline"])
def test_the_pipeline_itself_takes_sound_of_these_dimensions(tmp_path: Path, pipeline: str) -> None:
    """The pipeline's own preparation, with a VAE that keeps every fourth sample."""
    samples = np.stack([np.linspace(-0.5, 0.5, 400), np.zeros(400)]).astype(np.float32)
    (tmp_path / "a.wav").write_bytes(encoded(Result(sound=samples, rate=40), "wav").data)
    name = "src_audio" if pipeline == "AceStepPipeline" else "initial_audio_waveforms"
    sound = read_files(keyword(pipeline, name), tmp_path / "a.wav", print)
    seen: list[torch.Tensor] = []

    def encode(given: torch.Tensor) -> SimpleNamespace:
        seen.append(given)
        latents = given[..., ::4]
        return SimpleNamespace(latent_dist=SimpleNamespace(sample=lambda *_: latents))

    vae = SimpleNamespace(encode=encode, dtype=torch.float32, hop_length=4)
    cpu = torch.device("cpu")
    if pipeline == "AceStepPipeline":
        own = SimpleNamespace(vae=vae)
        diffusers.AceStepPipeline.prepare_src_latents(own, cpu, torch.float32, src_audio=sound)
        own.sample_rate = 10
        diffusers.AceStepPipeline.prepare_reference_audio_latents(own, sound, 1, cpu, torch.float32)
    else:
        scheduler = SimpleNamespace(init_noise_sigma=1.0)
        transformer = SimpleNamespace(config=SimpleNamespace(sample_size=100))
        own = SimpleNamespace(vae=vae, scheduler=scheduler, transformer=transformer)
        diffusers.StableAudioPipeline.prepare_latents(
            own, 1, 2, 100, torch.float32, cpu, torch.Generator().manual_seed(0), None, sound, 1, 2
        )

    assert {tuple(given.shape[:2]) for given in seen} == {(1, 2)}


def test_a_stack_of_pictures_is_one_result() -> None:
    layers = np.random.default_rng(0).random((3, 8, 6, 4), np.float32)

    result = result_of(object(), {"images": [layers]}, {})

    assert result.kinds == {"layers"}
    assert np.array_equal(np.asarray(result.layers), layers)
