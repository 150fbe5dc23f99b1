"""The arguments of a pipeline's call: from an item's parameters, and from the hand-off of an earlier stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from runner_diffusers.replay.values import pack, unpack

if TYPE_CHECKING:
    from runner_diffusers.pipelines.params import PipelineParams

OUTPUT = {"output_type": "np"}


def call_arguments(params: PipelineParams) -> dict[str, Any]:
    """The keywords of the call that an item sets, with its files read."""
    return {
        name: read(value) if name in params.files() else value for name, value in params.arguments().items()
    }


def read(value: Any) -> Any:
    from PIL import Image

    return [read(one) for one in value] if isinstance(value, list) else Image.open(value)


def packed_arguments(params: PipelineParams) -> Any:
    """The keywords that are not files, as JSON."""
    values = {name: value for name, value in params.arguments().items() if name not in params.files()}
    return pack(values, _no_tensors)


def unpacked_arguments(packed: Any) -> dict[str, Any]:
    found: dict[str, Any] = unpack(packed, _no_tensors, torch.device("cpu"))
    return found


def _no_tensors(_tensor: Any) -> Any:
    raise TypeError("a keyword of the call is a tensor")
