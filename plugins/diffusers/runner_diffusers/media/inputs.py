"""An item's files as what pipelines take: pictures, lists of frames, sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner_diffusers.media.clips import read_clip
from runner_diffusers.media.pictures import read_picture
from runner_diffusers.media.probe import probe
from runner_diffusers.media.sounds import read_sound
from runner_diffusers.pipelines.signature import FileKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from runner_diffusers.media.pictures import Mode
    from runner_diffusers.media.probe import Probe, Wanted
    from runner_diffusers.pipelines.signature import Keyword

    Note = Callable[[str], None]


WITHOUT_BATCH = ("src_audio", "reference_audio")
"""Keywords that take sound as (channels, samples); others take a batch of one: (1, channels, samples)."""
MODES: Mapping[Wanted, Mode] = {"picture": "RGB", "mask": "L", "transparent": "RGBA"}
"""What pictures are read as."""


def wanted_of(keyword: Keyword, value: Any) -> Wanted:
    """What a keyword's file is read as: a list for a clip has a picture for each frame."""
    if keyword.file is FileKind.SOUND:
        return "sound"
    if keyword.file is FileKind.CLIP and not isinstance(value, list):
        return "clip"
    if keyword.file is FileKind.TRANSPARENT:
        return "transparent"
    return "mask" if "mask" in keyword.name else "picture"


def files_of(value: Any) -> Iterator[Path]:
    yield from value if isinstance(value, list) else [value]


def look_at_files(keyword: Keyword, value: Any) -> dict[Path, Probe]:
    """What the headers of a keyword's files say.

    Raises:
        MediaError: one is not what is wanted, or cannot be read.

    """
    return {path: probe(path, wanted_of(keyword, value)) for path in files_of(value)}


def read_files(keyword: Keyword, value: Any, note: Note) -> Any:
    """A keyword's files as the pipeline takes them; ``note`` is called with what reading changed.

    Raises:
        MediaError: one cannot be read.

    """
    wanted = wanted_of(keyword, value)
    if wanted == "sound":
        import torch

        samples = torch.from_numpy(read_sound(value).samples)
        return samples if keyword.name in WITHOUT_BATCH else samples[None]
    if wanted == "clip":
        clip = read_clip(value)
        _tell(value, clip.notes, note)
        return clip.frames
    pictures = []
    for path in files_of(value):
        picture = read_picture(path, MODES[wanted])
        _tell(path, picture.notes, note)
        pictures.append(picture.image)
    return pictures if isinstance(value, list) else pictures[0]


def _tell(path: Path, notes: tuple[str, ...], note: Note) -> None:
    for one in notes:
        note(f"{path.name}: {one}")
