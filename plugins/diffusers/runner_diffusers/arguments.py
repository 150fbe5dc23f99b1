"""The arguments of a pipeline's call: an item's parameters, or what an earlier stage handed on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from runner_diffusers.media.inputs import read_files
from runner_diffusers.pipelines.params import ITS_STEPS
from runner_diffusers.pipelines.signature import defaults
from runner_diffusers.replay.values import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner_diffusers.pipelines.params import PipelineParams

AS_NUMBERS = {"output_type": "np"}
ENCODING_STEPS = 8
"""Steps that the encode stage calls the pipeline with where its default number cannot be used.

The default may be unknown, as some pipelines read it from the model's config, or so small that an item's
``strength`` leaves no step of it. The loop itself does not run in the encode stage.
"""


def call_arguments(
    params: PipelineParams, note: Callable[[str], None] = lambda _message: None
) -> dict[str, Any]:
    """The keywords of the pipeline's call that an item sets, with the content of its files.

    ``note`` is called with a sentence for each change that reading a file made, such as lost transparency.
    """
    files = {one.name: one for one in params.file_keywords()}
    arguments = {
        name: read_files(files[name], value, note) if name in files else value
        for name, value in params.arguments().items()
    }
    known = defaults(params.pipeline_source())
    return {**arguments, **{name: value for name, value in AS_NUMBERS.items() if name in known}}


def encoding_arguments(params: PipelineParams, note: Callable[[str], None]) -> dict[str, Any]:
    """The keywords of the pipeline's call in the encode stage, with a number of steps that it accepts.

    The stage runs what comes before the denoising loop, and ends at the first call of the denoiser. What it
    computes does not depend on the number of steps, so the item's number is no parameter of it. But the loop
    must have at least one step, or that call never comes: pipelines with a ``strength`` leave out all steps
    but that part of them.
    """
    arguments = call_arguments(params, note)
    known = defaults(params.pipeline_source())
    if ITS_STEPS not in known:
        return arguments
    strength = float(arguments.get("strength", known.get("strength")) or 1.0)
    steps, least = known[ITS_STEPS], math.ceil(1 / strength) + 1
    if steps is None or steps * strength < 1:
        arguments[ITS_STEPS] = max(ENCODING_STEPS, least)
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
