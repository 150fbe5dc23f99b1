"""Results as files: they hold the numbers they were made from."""

from __future__ import annotations

import io
import json
import wave
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from PIL import Image
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.formats import FORMATS, Kind, missing, refusal
from runner_diffusers.media.sounds import read_sound
from runner_diffusers.media.writing import CONTAINER, Result, encoded, most_bytes
from safetensors.numpy import load

if TYPE_CHECKING:
    from pathlib import Path

    from runner_diffusers.media.formats import Format

NOISE = np.random.default_rng(0)
PICTURE = NOISE.random((24, 40, 3), np.float32)
CLIP = NOISE.random((6, 24, 40, 3), np.float32)
SOUND = (NOISE.random((2, 12_000)) / 2 - 0.25).astype(np.float32)
LAYERS = NOISE.random((3, 24, 40, 4), np.float32)
RESULTS: dict[frozenset[Any], Result] = {
    frozenset({"picture"}): Result(picture=PICTURE),
    frozenset({"layers"}): Result(layers=LAYERS, pipeline="QwenImageLayeredPipeline"),
    frozenset({"clip"}): Result(clip=CLIP),
    frozenset({"sound"}): Result(sound=SOUND, rate=24_000),
    frozenset({"clip", "sound"}): Result(clip=CLIP, sound=SOUND, rate=24_000),
}
CASES = [(wanted, kinds) for kinds in RESULTS for wanted in FORMATS[kinds]]


@pytest.mark.parametrize(("wanted", "kinds"), CASES)
def test_the_same_numbers_make_the_same_bytes(wanted: Format, kinds: frozenset[Any]) -> None:
    first, second = (encoded(RESULTS[kinds], wanted) for _ in range(2))

    assert first == second
    assert first.notes == ()


LARGE: dict[frozenset[Any], Result] = {
    frozenset({"picture"}): Result(picture=NOISE.random((240, 416, 3), np.float32)),
    frozenset({"layers"}): Result(layers=LAYERS),
    frozenset({"clip"}): Result(clip=NOISE.random((9, 120, 208, 3), np.float32)),
    frozenset({"sound"}): Result(sound=NOISE.random((2, 240_000), np.float32), rate=24_000),
    frozenset({"clip", "sound"}): Result(
        clip=NOISE.random((9, 120, 208, 3), np.float32),
        sound=NOISE.random((2, 24_000), np.float32),
        rate=24_000,
    ),
}


@pytest.mark.parametrize(("wanted", "kinds"), CASES)
def test_no_file_is_larger_than_planned_even_of_noise(wanted: Format, kinds: frozenset[Any]) -> None:
    written, most = len(encoded(LARGE[kinds], wanted).data), most_bytes(LARGE[kinds], wanted)

    assert written <= most
    assert most - CONTAINER <= 1.3 * written


def test_a_png_holds_the_rounded_numbers() -> None:
    image = Image.open(io.BytesIO(encoded(Result(picture=PICTURE), "png").data))

    assert np.array_equal(np.asarray(image), (PICTURE * 255).round().astype(np.uint8))


@pytest.mark.parametrize("wanted", ["jpeg", "webp"])
def test_packed_pictures_are_near(wanted: Format) -> None:
    smooth = np.stack(np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 24)), axis=-1).astype(np.float32)
    picture = np.concatenate([smooth, smooth[..., :1]], axis=-1)

    image = Image.open(io.BytesIO(encoded(Result(picture=picture), wanted).data))

    assert image.size == (40, 24)
    assert np.abs(np.asarray(image, np.float32) / 255 - picture).mean() < 0.01


def test_grey_and_transparent_pictures() -> None:
    grey = Image.open(io.BytesIO(encoded(Result(picture=PICTURE[..., :1]), "jpeg").data))
    glass = NOISE.random((8, 8, 4), np.float32)

    assert grey.mode == "L"
    assert Image.open(io.BytesIO(encoded(Result(picture=glass), "png").data)).mode == "RGBA"
    with pytest.raises(MediaError, match="no transparency: set png or webp"):
        encoded(Result(picture=glass), "jpeg")


def test_raw_numbers_are_exact() -> None:
    picture = load(encoded(Result(picture=PICTURE), "safetensors").data)
    both = load(encoded(RESULTS[frozenset({"clip", "sound"})], "safetensors").data)

    assert np.array_equal(picture["images"], PICTURE)
    assert set(both) == {"frames", "audio"}
    assert np.array_equal(both["frames"], CLIP)
    assert np.array_equal(both["audio"], SOUND)
    assert {value.dtype for value in both.values()} == {np.dtype(np.float32)}


def test_an_mp4_plays_everywhere_and_says_what_it_was_made_with() -> None:
    result = Result(clip=CLIP, fps=24, parameters={"prompt": "ein Füchslein", "seed": 7})
    with av.open(io.BytesIO(encoded(result, "mp4").data), "r") as file:
        video = file.streams.video[0]
        assert (video.codec_context.name, video.pix_fmt, video.width, video.height) == (
            "h264",
            "yuv420p",
            40,
            24,
        )
        assert video.average_rate == Fraction(24)
        assert len(list(file.decode(video))) == 6
        assert (video.codec_context.colorspace, video.codec_context.color_range) == (1, 1)
        assert json.loads(file.metadata["comment"]) == {"prompt": "ein Füchslein", "seed": 7}


def test_an_mp4_with_sound(tmp_path: Path) -> None:
    time = np.arange(24_000) / 24_000
    tone = np.stack([np.sin(time * 440 * 6.2832) / 2] * 2).astype(np.float32)
    path = tmp_path / "clip.mp4"
    path.write_bytes(encoded(Result(clip=CLIP, sound=tone, rate=24_000, fps=6), "mp4").data)

    read = read_sound(path)

    assert (read.rate, read.samples.shape[0]) == (24_000, 2)
    assert read.samples.shape[1] == pytest.approx(24_000, abs=2048)  # AAC has blocks of 1024
    assert np.abs(read.samples[:, 8_000:16_000]).max() == pytest.approx(0.5, abs=0.05)


def test_odd_sizes_are_padded_and_reported() -> None:
    written = encoded(Result(clip=CLIP[:, :23, :39]), "mp4")

    assert "39 x 23, and in the mp4 40 x 24" in written.notes[0]
    with av.open(io.BytesIO(written.data)) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (40, 24)


def test_a_gif_keeps_time() -> None:
    frames = np.repeat(np.linspace(0, 1, 24, dtype=np.float32)[:, None, None, None], 3, axis=-1)
    clip = np.broadcast_to(frames, (24, 8, 8, 3))
    image = Image.open(io.BytesIO(encoded(Result(clip=clip, fps=24), "gif").data))

    durations = []
    for number in range(24):
        image.seek(number)
        durations.append(image.info["duration"])

    assert sum(durations) == 1000  # though 1/24 second is no whole number of a GIF's hundredths


def test_a_wav_says_what_was_cut() -> None:
    loud = np.array([[0.5, 2.0, -0.5, -3.0]], np.float32)

    written = encoded(Result(sound=loud, rate=16_000), "wav")

    with wave.open(io.BytesIO(written.data)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (1, 16_000, 2)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [16384, 32767, -16384, -32767]
    assert written.notes == ("2 samples of the sound are louder than 1, and were cut",)


@pytest.mark.parametrize("wanted", ["png", "gif", "mp4", "wav"])
def test_numbers_that_are_not_finite_are_refused(wanted: Format) -> None:
    kinds = next(kinds for kinds, formats in FORMATS.items() if wanted in formats)
    broken: dict[str, Any] = {"picture": PICTURE.copy(), "clip": CLIP.copy(), "sound": SOUND.copy()}
    for values in broken.values():
        values[0, 0] = np.nan

    with pytest.raises(MediaError, match="not finite"):
        encoded(Result(**{kind: broken[kind] for kind in kinds}, rate=24_000), wanted)


def test_sound_that_an_mp4_cannot_hold() -> None:
    with pytest.raises(MediaError, match="1 or 2 channels, and this has 6"):
        encoded(Result(clip=CLIP, sound=np.zeros((6, 100), np.float32), rate=48_000), "mp4")
    with pytest.raises(MediaError, match="no sound of 12345 samples"):
        encoded(Result(clip=CLIP, sound=SOUND, rate=12_345), "mp4")


def test_formats_are_chosen_and_refused_by_what_is_made() -> None:
    silent, loud = frozenset({Kind.CLIP}), frozenset({Kind.CLIP, Kind.SOUND})
    assert refusal("png", frozenset({Kind.PICTURE}), "FluxPipeline") is None
    for wanted in FORMATS[silent]:
        assert refusal(wanted, silent, "WanPipeline") is None
    assert refusal("webp", silent, "WanPipeline") == (
        'the clips of WanPipeline are written as mp4, gif, safetensors, not as webp: set format = "mp4"'
    )
    assert "clips with sound of LTX2Pipeline are written as mp4, safetensors, not as gif" in (
        refusal("gif", loud, "LTX2Pipeline") or ""
    )
    assert missing("mp4") is None
    with pytest.raises(MediaError, match=r'not as wav: set format = "mp4"'):
        encoded(Result(clip=CLIP), "wav")
    with pytest.raises(MediaError, match="this has 4: set safetensors"):
        encoded(Result(clip=CLIP[..., [0, 1, 2, 0]]), "mp4")


@pytest.mark.parametrize("wanted", ["png", "jpeg", "webp"])
def test_a_stack_of_layers_is_no_single_picture(wanted: Format) -> None:
    layered = RESULTS[frozenset({"layers"})]

    assert np.array_equal(load(encoded(layered, "safetensors").data)["layers"], LAYERS)
    with pytest.raises(MediaError, match=f'safetensors, not as {wanted}: set format = "safetensors"'):
        encoded(layered, wanted)
