"""Sound of an item that is not as the model takes it is reported before anything runs."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING, Any

import pytest
from model_indexes import facts_of
from runner_diffusers.pipelines import checks, params

from runner.api import Facts

if TYPE_CHECKING:
    from pathlib import Path

OOBLECK = {"_class_name": "AutoencoderOobleck"}  # by default of 44,100 samples a second, stereo


def reported(
    folder: Path, pipeline: str, keyword: str, vae: dict[str, Any], rate: int, channels: int = 2
) -> list[tuple[str, str, bool]]:
    path = folder / "my song.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(200 * channels))
    stage = params.encode(facts_of(pipeline, index="StableAudioPipeline"))
    item = stage.model_validate({"prompt": "rain", keyword: path})
    found = checks.encode(item, Facts({"vae": vae}))
    return [(one.message.replace(f"{folder}/", ""), one.parameter, one.warning) for one in found]


@pytest.mark.parametrize(
    ("pipeline", "keyword", "vae", "wanted"),
    [
        ("AceStepPipeline", "src_audio", {**OOBLECK, "sampling_rate": 48_000}, 48_000),
        ("AceStepPipeline", "reference_audio", {**OOBLECK, "sampling_rate": 48_000}, 48_000),
        ("StableAudioPipeline", "initial_audio_waveforms", OOBLECK, 44_100),
        ("StableAudio3AudioToAudioPipeline", "audio", {"_class_name": "AutoencoderSAME"}, 44_100),
        ("StableAudio3InpaintPipeline", "audio", {"sampling_rate": 32_000}, 32_000),
    ],
)
def test_sound_of_another_rate_than_the_models_is_refused(
    tmp_path: Path, pipeline: str, keyword: str, vae: dict[str, Any], wanted: int
) -> None:
    message = (
        f"my song.wav: it has 22050 samples a second, and this model takes {wanted}: convert it, and name the "
        f"new file: ffmpeg -i 'my song.wav' -ar {wanted} 'my song_converted.wav'"
    )

    assert reported(tmp_path, pipeline, keyword, vae, wanted) == []
    assert reported(tmp_path, pipeline, keyword, vae, 22_050) == [(message, keyword, False)]


def test_sound_of_other_channels_is_refused_where_the_pipeline_does_not_mix_it(tmp_path: Path) -> None:
    mono: dict[str, Any] = {"vae": OOBLECK, "rate": 44_100, "channels": 1}
    assert reported(tmp_path, "StableAudioPipeline", "initial_audio_waveforms", **mono) == []
    ((message, keyword, warning),) = reported(tmp_path, "StableAudio3AudioToAudioPipeline", "audio", **mono)
    assert "1 channels, and this model takes 2: convert it" in message
    assert "-ac 2" in message
    assert (keyword, warning) == ("audio", False)


def test_an_unknown_rate_is_a_warning(tmp_path: Path) -> None:
    ((message, keyword, warning),) = reported(tmp_path, "AceStepPipeline", "src_audio", {}, 8_000)
    assert message.startswith("my song.wav: it has 8000 samples a second, and this model's files do not tell")
    assert (keyword, warning) == ("src_audio", True)
