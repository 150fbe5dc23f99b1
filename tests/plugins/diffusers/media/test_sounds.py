"""Sounds of items: what is read of them, and what is refused."""

from __future__ import annotations

import wave
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.probe import Probe, probe
from runner_diffusers.media.sounds import read_sound
from runner_diffusers.media.writing import Result, encoded

if TYPE_CHECKING:
    from pathlib import Path


def sine(rate: int, seconds: float = 0.5) -> np.ndarray[Any, np.dtype[np.float32]]:
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([np.sin(time * 440 * 6.2832) / 2, np.cos(time * 440 * 6.2832) / 2]).astype(np.float32)


@pytest.mark.parametrize("dtype", ["<u1", "<i2", "<i4"])
def test_sound_of_a_wav(tmp_path: Path, dtype: str) -> None:
    made = sine(8_000)
    width = int(dtype[-1])
    scale = 2 ** (8 * width - 1)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(width)
        file.setframerate(8_000)
        file.writeframes(
            (made.T.astype(np.float64) * scale + (128 if width == 1 else 0)).astype(dtype).tobytes()
        )

    read = read_sound(tmp_path / "a.wav")

    assert (read.rate, read.samples.shape, read.samples.dtype) == (8_000, (2, 4_000), np.dtype(np.float32))
    np.testing.assert_allclose(read.samples, made, atol=1.1 / scale * 2)
    assert probe(tmp_path / "a.wav", "sound") == Probe(rate=8_000, channels=2, samples=4_000)


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_packed_sound(tmp_path: Path, suffix: str) -> None:
    path, made = tmp_path / f"a.{suffix}", sine(44_100)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(suffix, rate=44_100, layout="stereo")
        frame = av.AudioFrame.from_ndarray(
            (made * 32767).astype(np.int16).T.reshape(1, -1), format="s16", layout="stereo"
        )
        frame.sample_rate = 44_100
        for part in (frame, None):
            out.mux(stream.encode(part))

    read = read_sound(path)

    assert (read.rate, read.samples.dtype) == (44_100, np.dtype(np.float32))
    assert read.samples.shape[0] == 2
    assert np.abs(read.samples[:, 5000:15000]).max() == pytest.approx(0.5, abs=0.05)
    looked = probe(path, "sound")
    assert (looked.rate, looked.channels) == (44_100, 2)
    assert looked.samples == pytest.approx(read.samples.shape[1], abs=2_500)  # blocks of silence around it


def test_sound_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "words.mp3").write_text("no sound")
    (tmp_path / "silent.mp4").write_bytes(
        encoded(Result(clip=np.zeros((9, 32, 48, 3), np.float32)), "mp4").data
    )
    whole = encoded(Result(sound=sine(8_000), rate=8_000), "wav").data
    (tmp_path / "cut.wav").write_bytes(whole[:2_000])

    with pytest.raises(MediaError, match=r"words\.mp3"):
        probe(tmp_path / "words.mp3", "sound")
    with pytest.raises(MediaError, match="no sound in it"):
        probe(tmp_path / "silent.mp4", "sound")
    with pytest.raises(MediaError, match="cut short"):
        read_sound(tmp_path / "cut.wav")
