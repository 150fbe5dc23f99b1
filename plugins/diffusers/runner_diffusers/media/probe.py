"""A look at an item's file before anything runs: headers only, in milliseconds, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from runner_diffusers.media.clips import ANIMATED, files_of
from runner_diffusers.media.containers import opened_container, stream_of
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.pictures import opened
from runner_diffusers.media.sounds import pcm_header

if TYPE_CHECKING:
    from pathlib import Path

Wanted: TypeAlias = Literal["picture", "mask", "transparent", "clip", "sound"]


@dataclass(frozen=True)
class Probe:
    """What the headers say."""

    width: int = 0
    height: int = 0
    """Pixels, before any turning; 0 for sound."""
    frames: int | None = None
    """Of a clip; at least as many as it has, where its header has only its length in seconds."""
    rate: int = 0
    """Samples a second of a sound."""
    channels: int = 0
    """Of a sound."""
    samples: int | None = None
    """Of each channel of a sound, if its header says so."""


def probe(path: Path, wanted: Wanted) -> Probe:
    """Open a file as what is wanted of it, and read its headers.

    Raises:
        MediaError: it is not there, or is nothing of that kind.

    """
    if path.is_dir() and wanted != "clip":
        raise MediaError(f"{path}: this is a folder, and a file is wanted")
    if wanted == "sound":
        return _sound(path)
    return _clip(path) if wanted == "clip" else _picture(path)


def _picture(path: Path, *, animated: bool = False) -> Probe:
    with opened(path, animated=animated) as image:
        frames = getattr(image, "n_frames", 1) if animated else None
        return Probe(image.width, image.height, frames)


def _clip(path: Path) -> Probe:
    if path.is_dir():
        files = files_of(path)
        looks = [_picture(file) for file in files]
        for file, look in zip(files, looks, strict=True):
            if (look.width, look.height) != (looks[0].width, looks[0].height):
                raise MediaError(
                    f"{file}: it is {look.width} x {look.height}, and the first frame {looks[0].width} x "
                    f"{looks[0].height}: make all of one size"
                )
        return Probe(looks[0].width, looks[0].height, len(files))
    if path.suffix.lower() in ANIMATED:
        return _picture(path, animated=True)
    with opened_container(path) as container:
        stream = stream_of(path, container, "video")
        frames = stream.frames or _count(container, stream, stream.average_rate)
        return Probe(stream.width, stream.height, frames)


def _sound(path: Path) -> Probe:
    if (sound := pcm_header(path)) is not None:
        return Probe(rate=sound.rate, channels=sound.channels, samples=sound.samples)
    with opened_container(path) as container:
        stream = stream_of(path, container, "audio")
        samples = _count(container, stream, stream.rate)
        return Probe(rate=stream.rate, channels=stream.channels, samples=samples)


def _count(container: Any, stream: Any, rate: Any) -> int | None:
    """Frames or samples by the length in seconds, rounded up; None where no header has it."""
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / 1e6  # microseconds
    else:
        return None
    return math.ceil(seconds * rate) if rate else None
