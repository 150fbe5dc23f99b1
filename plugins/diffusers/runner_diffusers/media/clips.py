"""Clips of items: video files, animated pictures, and folders of numbered frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner_diffusers.media.containers import opened_container, stream_of, while_decoding
from runner_diffusers.media.errors import MediaError
from runner_diffusers.media.pictures import as_mode, notes_of, opened, read_picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

ANIMATED = (".gif", ".webp", ".png", ".apng")
SLACK = 0.25  # seconds, as headers are not always exact
MOST_PIXELS = 1 << 31  # of a clip: 6 GiB as RGB, 2,330 frames of 1280 x 720


@dataclass(frozen=True)
class Clip:
    frames: list[Image.Image]
    """RGB, all of one size."""
    fps: float | None
    """Frames a second, if the file says so."""
    notes: tuple[str, ...] = ()


def read_clip(path: Path) -> Clip:
    """Read all frames of a video, of an animated picture, or of a folder with one picture a frame.

    Raises:
        MediaError: it cannot be read, has no frames, or frames of several sizes.

    """
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() in ANIMATED:
        with opened(path, animated=True) as image:
            notes, frames, seconds = notes_of(image), _Frames(path), 0.0
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                frames.add(as_mode(image, "RGB"))
                seconds += image.info.get("duration", 0) / 1000
            return Clip(frames.images, len(frames.images) / seconds if seconds else None, notes)
    return _video(path)


def files_of(folder: Path) -> list[Path]:
    """The frames of a folder in the order of their numbers: frame2 before frame10."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise MediaError(f"{folder}: the folder holds no frames: put one picture a frame in it")
    return sorted(files, key=lambda path: [_order(part) for part in re.split(r"(\d+)", path.name)])


def _order(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part.lower())


def _folder(path: Path) -> Clip:
    frames, notes = _Frames(path), dict[str, None]()
    for file in files_of(path):
        picture = read_picture(file)
        frames.add(picture.image, file)
        notes |= dict.fromkeys(picture.notes)
    return Clip(frames.images, None, tuple(notes))


def _video(path: Path) -> Clip:
    with opened_container(path) as container:
        stream = stream_of(path, container, "video")
        frames, rotation = _Frames(path), 0
        for frame in _decoded(path, container, stream):
            rotation = frame.rotation  # telephones store what they film lying on its side
            frames.add(frame.to_image().rotate(rotation, expand=True))
        if not frames.images:
            raise MediaError(f"{path}: the video has no frames")
        notes = ("it is turned upright, as the file says",) if rotation else ()
        return Clip(frames.images, float(stream.average_rate) if stream.average_rate else None, notes)


def _decoded(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """The frames of a stream; a file that ends before its header says is refused, as FFmpeg says nothing."""
    end = 0.0
    with while_decoding(path):
        for packet in container.demux():
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.stream is stream:
                yield from packet.decode()
    if container.duration is not None and container.duration / 1e6 - end > SLACK:
        raise MediaError(
            f"{path}: it is cut short, {end:.1f} of {container.duration / 1e6:.1f} seconds: copy it anew"
        )


class _Frames:
    """Frames as they are read, refused if they are too many or of several sizes."""

    def __init__(self, path: Path) -> None:
        self.images: list[Image.Image] = []
        self._path = path
        self._pixels = 0

    def add(self, image: Image.Image, file: Path | None = None) -> None:
        if self.images and image.size != self.images[0].size:
            one, other = (" x ".join(map(str, size)) for size in (self.images[0].size, image.size))
            where = file or f"{self._path}, frame {len(self.images) + 1}"
            raise MediaError(f"{where}: it is {other}, and the frames before {one}: make all of one size")
        self._pixels += image.width * image.height
        if self._pixels > MOST_PIXELS:
            raise MediaError(f"{self._path}: the clip has more than {MOST_PIXELS:,} pixels in all: cut it")
        self.images.append(image)
