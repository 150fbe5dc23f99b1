"""The formats of results, and what each can hold. Imports nothing heavy: it checks parameters."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(StrEnum):
    """A part of a pipeline's result."""

    PICTURE = "picture"
    LAYERS = "layers"
    """A stack of pictures of one size that lie on each other."""
    CLIP = "clip"
    SOUND = "sound"


Format: TypeAlias = Literal["png", "jpeg", "webp", "mp4", "gif", "wav", "safetensors"]

FORMATS: Mapping[frozenset[Kind], tuple[Format, ...]] = {
    frozenset({Kind.PICTURE}): ("png", "jpeg", "webp", "safetensors"),
    frozenset({Kind.LAYERS}): ("safetensors",),
    frozenset({Kind.CLIP}): ("mp4", "gif", "safetensors"),
    frozenset({Kind.CLIP, Kind.SOUND}): ("mp4", "safetensors"),
    frozenset({Kind.SOUND}): ("wav", "safetensors"),
    frozenset(): ("safetensors",),
}
"""What a result with these parts can be written as; "auto" is the first. One without parts is tensors."""
PLURALS: Mapping[frozenset[Kind], str] = {
    frozenset({Kind.PICTURE}): "pictures",
    frozenset({Kind.LAYERS}): "stacks of layers",
    frozenset({Kind.CLIP}): "clips",
    frozenset({Kind.CLIP, Kind.SOUND}): "clips with sound",
    frozenset({Kind.SOUND}): "sounds",
    frozenset(): "tensors",
}
"""The names of results in messages."""
VIDEO_EXTRA = "pip install 'runner-diffusers[video]'"


def refusal(wanted: str, kinds: frozenset[Kind], pipeline: str) -> str | None:
    """Why this format cannot hold what the pipeline makes, for the user; None if it can."""
    if kinds not in FORMATS:  # parts that no format has together but the one of tensors
        kinds = frozenset()
    able = FORMATS[kinds]
    if wanted in able:
        return None
    return (
        f"the {PLURALS[kinds]} of {pipeline} are written as {', '.join(able)}, not as {wanted}: set format "
        f'= "{able[0]}"'
    )


def missing(wanted: Format) -> str | None:
    """What has to be installed to write this format, for the user; None if all is there."""
    if wanted == "mp4" and not has_video():
        return f"mp4 needs PyAV: {VIDEO_EXTRA}"
    return None


def has_video() -> bool:
    """Whether PyAV is installed, which reads and writes video and packed sound; it is not imported."""
    return find_spec("av") is not None
