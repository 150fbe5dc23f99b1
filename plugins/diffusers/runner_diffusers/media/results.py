"""What a pipeline returned for one item, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from runner_diffusers.media.writing import Result

if TYPE_CHECKING:
    from numpy.typing import NDArray

PICTURES = ("images", "image", "rgb", "prediction")
CLIPS = ("frames", "videos", "video")
SOUNDS = ("audios", "audio")
GREY, STACK = 2, 4
"""Dimensions of a picture without channels, and of several pictures that are one result."""
RATES = (
    ("vocoder", "output_sampling_rate"),
    ("vocoder", "sampling_rate"),
    ("audio_vae", "sample_rate"),
    ("vae", "sampling_rate"),
)
"""Where pipelines have the samples a second of their sound: a component, and a value of its config."""


class ResultError(Exception):
    """A pipeline returned nothing that can be written to a file."""


def result_of(pipeline: Any, returned: Any, parameters: Mapping[str, Any], fps: float = 16) -> Result:
    """The item's picture or layers, clip and sound.

    Raises:
        ResultError: there is none, or the rate of the sound is unknown.

    """
    if not isinstance(returned, Mapping):
        raise ResultError(
            f"{type(pipeline).__name__} returned a {type(returned).__name__}, and no named outputs"
        )
    picture, clip, sound = (_first(returned, names) for names in (PICTURES, CLIPS, SOUNDS))
    if picture is None and clip is None and sound is None:
        raise ResultError(
            f"{type(pipeline).__name__} returned {', '.join(returned)}: no picture, clip or sound"
        )
    layers = None
    if picture is not None and picture.ndim == STACK:
        picture, layers = None, picture
    elif picture is not None and picture.ndim == GREY:
        picture = picture[..., None]
    if sound is not None and sound.ndim == 1:
        sound = sound[None]
    rate = _rate(pipeline) if sound is not None else 0
    return Result(picture, layers, clip, sound, rate, fps, type(pipeline).__name__, parameters)


def _first(returned: Mapping[str, Any], names: tuple[str, ...]) -> NDArray[np.float32] | None:
    """The first of the batch of one, of the first of these fields that is there."""
    value = next((returned[name] for name in names if returned.get(name) is not None), None)
    if value is None:
        return None
    one = value[0]
    if hasattr(one, "detach"):
        one = one.detach().to("cpu").float().numpy()
    return np.asarray(one, dtype=np.float32)


def _rate(pipeline: Any) -> int:
    for name, value in RATES:
        config = getattr(getattr(pipeline, name, None), "config", None)
        if config is not None and getattr(config, value, None):
            return int(getattr(config, value))
    rate = getattr(pipeline, "sample_rate", None) or getattr(pipeline, "audio_sampling_rate", None)
    if not rate:
        raise ResultError(
            f"{type(pipeline).__name__} makes sound, and says nowhere of how many samples a second"
        )
    return int(rate)
