"""Results of pipelines as files, from the numbers of ``output_type="np"``.

The same numbers make the same bytes on one machine: encoders have a fixed number of threads, and files no
dates.
"""

from __future__ import annotations

import io
import itertools
import json
import wave
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.formats import Kind, refusal
from runner_diffusers.media.video import BITS, mp4

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from runner_diffusers.media.formats import Format

STILL: Mapping[str, Mapping[str, Any]] = {
    "png": {},
    "jpeg": {"quality": 95, "subsampling": "4:4:4"},
    "webp": {"quality": 95, "method": 4},
}
MOST = {"png": 1.01, "jpeg": 0.9, "webp": 0.4, "mp4": 0.3, "gif": 0.5}
"""The most bytes for a number of a picture or clip: for noise, PNG takes 1.002, JPEG 0.81, WebP 0.32, H.264
0.25 and GIF 0.46 (pictures and clips of 416 x 240 in RGB, 2026-12-01)."""
CONTAINER = 4096  # bytes of a file beside pixels and samples


@dataclass(frozen=True)
class Result:
    """What a pipeline made: a picture, a stack of layers, a clip, sound, or a clip with sound."""

    picture: NDArray[np.float32] | None = None
    """(height, width, channels), from 0 to 1."""
    layers: NDArray[np.float32] | None = None
    """(layers, height, width, channels), from 0 to 1."""
    clip: NDArray[np.float32] | None = None
    """(frames, height, width, channels), from 0 to 1."""
    sound: NDArray[np.float32] | None = None
    """(channels, samples), from -1 to 1."""
    rate: int = 0
    """Samples a second of the sound."""
    fps: float = 16
    """Frames a second of the clip."""
    pipeline: str = ""
    """The name of its class, for messages."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What it was made with: kept in the metadata of an mp4."""

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(kind for kind in Kind if getattr(self, kind) is not None)


@dataclass(frozen=True)
class Written:
    data: bytes
    notes: tuple[str, ...] = ()
    """What the file does not hold as it was made, for the user."""


def encoded(result: Result, wanted: Format) -> Written:
    """The bytes of the file.

    Raises:
        MediaError: the format cannot hold the result, or the result has numbers that are no colours.

    """
    if reason := refusal(wanted, result.kinds, result.pipeline):
        raise MediaError(reason)
    if wanted == "safetensors":
        return Written(_raw(result))
    if result.picture is not None:
        return Written(_still(result.picture, wanted))
    if result.clip is None:
        return _wav(result)
    pixels = as_bytes(result.clip)
    if wanted == "mp4":
        parameters = json.dumps(result.parameters, ensure_ascii=False)
        return Written(*mp4(pixels, result.fps, result.sound, result.rate, parameters))
    return Written(_gif(pixels, result.fps))


def most_bytes(result: Result, wanted: Format) -> int:
    """The most bytes of the file, whatever the numbers are: those of noise."""
    seen = sum(one.size for one in (result.picture, result.layers, result.clip) if one is not None)
    heard = 0 if result.sound is None else result.sound.size
    if wanted == "safetensors":
        return 4 * (seen + heard) + CONTAINER
    if wanted == "wav":
        return 2 * heard + CONTAINER
    samples = heard / len(result.sound) if result.sound is not None else 0
    sound = int(BITS / 8 * samples / result.rate) if samples else 0
    return int(MOST[wanted] * seen) + sound + CONTAINER


def as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Numbers from 0 to 1 as bytes, rounded as diffusers does; frame by frame, as clips are large."""
    import numpy as np

    pixels = np.empty(values.shape, np.uint8)
    for part, numbers in zip(pixels, values, strict=True):
        if not np.isfinite(numbers).all():
            raise MediaError(
                "the result has numbers that are not finite: decode in float32, or change the scheduler"
            )
        part[...] = (np.clip(numbers, 0, 1) * 255).round()
    return pixels


def _raw(result: Result) -> bytes:
    """The numbers themselves, as float32."""
    import numpy as np
    from safetensors.numpy import save

    there = {
        "images": result.picture,
        "layers": result.layers,
        "frames": result.clip,
        "audio": result.sound,
    }
    return save(
        {
            name: np.ascontiguousarray(value, dtype=np.float32)
            for name, value in there.items()
            if value is not None
        }
    )


def _still(picture: NDArray[np.float32], wanted: Format) -> bytes:
    image = _image(as_bytes(picture))
    if wanted == "jpeg" and image.mode == "RGBA":
        raise MediaError("jpeg holds no transparency: set png or webp")
    file = io.BytesIO()
    image.save(file, wanted, **STILL[wanted])
    return file.getvalue()


def _image(pixels: NDArray[np.uint8]) -> Image.Image:
    from PIL import Image

    return Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels)


def _gif(pixels: NDArray[np.uint8], fps: float) -> bytes:
    """A GIF, with 256 colours a frame, in an endless loop; its times are hundredths of a second."""
    first, *others = (_image(frame) for frame in pixels)
    times = [round(number * 100 / fps) * 10 for number in range(len(pixels) + 1)]
    durations = [end - start for start, end in itertools.pairwise(times)]
    file = io.BytesIO()
    first.save(file, "gif", save_all=True, append_images=others, duration=durations, loop=0)
    return file.getvalue()


def _wav(result: Result) -> Written:
    """PCM of 16 bits."""
    import numpy as np

    sound = result.sound
    if sound is None or not np.isfinite(sound).all():
        raise MediaError("the sound has numbers that are not finite: decode in float32")
    over = int((np.abs(sound) > 1).sum())
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(sound.shape[0])
        out.setsampwidth(2)
        out.setframerate(result.rate)
        out.writeframes((np.clip(sound, -1, 1).T * 32767).round().astype("<i2").tobytes())
    notes = (f"{over:,} samples of the sound are louder than 1, and were cut",) if over else ()
    return Written(file.getvalue(), notes)
