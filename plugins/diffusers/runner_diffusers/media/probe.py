"""A look at an item's file before anything runs: headers only, in milliseconds, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from runner_diffusers.media.clips import ANIMATED, files_of
from runner_diffusers.media.containers import opened_container, stream_of
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.pictures import notes_of, opened
from runner_diffusers.media.sounds import is_pcm

if TYPE_CHECKING:
    from pathlib import Path

Wanted: TypeAlias = Literal["picture", "mask", "clip", "sound"]


@dataclass(frozen=True)
class Probe:
    """What the headers say."""

    width: int = 0
    height: int = 0
    """Pixels, before any turning; 0 for sound."""
    frames: int | None = None
    """Of a clip, if its header says so."""
    notes: tuple[str, ...] = ()
    """What reading will change, for the user."""


def probe(path: Path, wanted: Wanted) -> Probe:
    """Open a file as what is wanted of it, and read its headers.

    Raises:
        MediaError: it is not there, or is nothing of that kind.

    """
    if path.is_dir() and wanted != "clip":
        raise MediaError(f"{path}: this is a folder, and a file is wanted")
    if wanted in {"picture", "mask"}:
        return _picture(path, mask=wanted == "mask")
    return _sound(path) if wanted == "sound" else _clip(path)


def _picture(path: Path, *, mask: bool = False, animated: bool = False) -> Probe:
    with opened(path, animated=animated) as image:
        frames = getattr(image, "n_frames", 1) if animated else None
        return Probe(image.width, image.height, frames, notes_of(image, mask=mask))


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
        notes = dict.fromkeys(note for look in looks for note in look.notes)
        return Probe(looks[0].width, looks[0].height, len(files), tuple(notes))
    if path.suffix.lower() in ANIMATED:
        return _picture(path, animated=True)
    with opened_container(path) as container:
        stream = stream_of(path, container, "video")
        return Probe(stream.width, stream.height, stream.frames or None)


def _sound(path: Path) -> Probe:
    if not is_pcm(path):
        with opened_container(path) as container:
            stream_of(path, container, "audio")
    return Probe()
