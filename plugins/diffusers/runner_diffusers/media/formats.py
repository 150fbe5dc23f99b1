"""The formats of results, and what each can hold. Imports nothing heavy: it checks parameters."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

Kind: TypeAlias = Literal["picture", "clip", "sound"]
Format: TypeAlias = Literal["png", "jpeg", "webp", "gif", "mp4", "wav", "safetensors"]

HOLDS: Mapping[Format, AbstractSet[frozenset[Kind]]] = {
    "png": {frozenset({"picture"})},
    "jpeg": {frozenset({"picture"})},
    "webp": {frozenset({"picture"}), frozenset({"clip"})},
    "gif": {frozenset({"clip"})},
    "mp4": {frozenset({"clip"}), frozenset({"clip", "sound"})},
    "wav": {frozenset({"sound"})},
    "safetensors": {
        frozenset({"picture"}),
        frozenset({"clip"}),
        frozenset({"sound"}),
        frozenset({"clip", "sound"}),
    },
}
VIDEO_EXTRA = "pip install 'runner-diffusers[video]'"


def resolve(wanted: Format | Literal["auto"], kinds: AbstractSet[Kind]) -> Format:
    """The format of a result with these kinds: for "auto" png, mp4 or wav."""
    if wanted != "auto":
        return wanted
    if "clip" in kinds:
        return "mp4"
    return "wav" if "sound" in kinds else "png"


def refusal(wanted: Format, kinds: AbstractSet[Kind]) -> str | None:
    """Why this format cannot hold such a result, for the user; None if it can."""
    if frozenset(kinds) in HOLDS[wanted]:
        return None
    able = [name for name, held in HOLDS.items() if frozenset(kinds) in held]
    made = " and ".join(sorted(kinds))
    return f"{wanted} cannot hold what this pipeline makes ({made}): set one of {', '.join(able)}"


def missing(wanted: Format) -> str | None:
    """What has to be installed to write this format, for the user; None if all is there."""
    if wanted == "mp4" and not has_video():
        return f"mp4 needs PyAV: {VIDEO_EXTRA}"
    return None


def has_video() -> bool:
    """Whether PyAV is installed, which reads and writes video and packed sound; it is not imported."""
    return find_spec("av") is not None
