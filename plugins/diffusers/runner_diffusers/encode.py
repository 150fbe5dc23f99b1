"""The encode stage: everything that a pipeline computes before its denoising loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from runner.api import Bundled
from runner_diffusers.arguments import encoding_arguments
from runner_diffusers.pipelines import components
from runner_diffusers.replay.call import PipelineCall, own_guiders
from runner_diffusers.replay.encoding import Recording
from runner_diffusers.replay.parts import parts_of
from runner_diffusers.replay.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item


def start(ctx: Context) -> Callable[[Item], dict[str, Bundled]]:
    """Load the encoders; the returned function records what they return for one item."""
    parts = parts_of(ctx, components.encode)

    def one(item: Item) -> dict[str, Bundled]:
        generator = seeded(getattr(item.params, "seed", 0), ctx.device)
        recording = Recording(generator)
        arguments = encoding_arguments(item.params, item.note)
        PipelineCall(parts, recording, own_guiders(parts)).run(arguments, generator)
        for tensor in recording.tensors.values():
            # minus infinity is in masks; a check that passes would end the engine's own
            if tensor.is_floating_point() and tensor.numel() and not bool(torch.isfinite(tensor.amax())):
                item.check_finite("encoded", tensor.amax())
        values = {"calls": recording.calls, "dtype": str(ctx.dtype)}
        return {"encoded": Bundled(recording.tensors, values)}

    return one
