"""The arguments of a pipeline's call: an item's parameters, or what an earlier stage handed on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from runner_diffusers.media.inputs import read_files
from runner_diffusers.pipelines.signature import defaults
from runner_diffusers.replay.values import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner_diffusers.pipelines.params import PipelineParams

AS_NUMBERS = {"output_type": "np"}
STEPS = "num_inference_steps"
UNKNOWN_STEPS = 8
"""Where a pipeline's default is in a model's config, or too few for an item's strength."""


def call_arguments(
    params: PipelineParams, note: Callable[[str], None] = lambda _message: None
) -> dict[str, Any]:
    """The keywords of the call that an item sets, with its files read; ``note`` gets what that changed."""
    files = {one.name: one for one in params.file_keywords()}
    arguments = {
        name: read_files(files[name], value, note) if name in files else value
        for name, value in params.arguments().items()
    }
    known = defaults(params.pipeline_source())
    return {**arguments, **{name: value for name, value in AS_NUMBERS.items() if name in known}}


def encoding_arguments(params: PipelineParams, note: Callable[[str], None]) -> dict[str, Any]:
    """The keywords of the encode stage's call: as many steps as the denoiser needs to be reached.

    The encode stage does not know the item's steps, of which pipelines with a ``strength`` skip some.
    """
    arguments = call_arguments(params, note)
    known = defaults(params.pipeline_source())
    if STEPS not in known:
        return arguments
    strength = float(arguments.get("strength", known.get("strength")) or 1.0)
    steps, least = known[STEPS], math.ceil(1 / strength) + 1
    if steps is None or steps * strength < 1:
        arguments[STEPS] = max(UNKNOWN_STEPS, least)
    return arguments


def packed_arguments(params: PipelineParams) -> Any:
    """The keywords that are not files, as JSON."""
    files = {one.name for one in params.file_keywords()}
    return pack({n: value for n, value in params.arguments().items() if n not in files}, _no_tensors)


def unpacked_arguments(packed: Any) -> dict[str, Any]:
    """The keywords that :func:`packed_arguments` made JSON of."""
    found: dict[str, Any] = unpack(packed, _no_tensors, torch.device("cpu"))
    return found


def _no_tensors(_tensor: Any) -> Any:
    raise TypeError("a keyword of the call is a tensor")
