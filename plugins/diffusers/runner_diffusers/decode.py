"""The decode stage: the pipeline's tail, with what decodes, after the loop was run through with zeros."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from runner_diffusers.arguments import call_arguments, unpacked_arguments
from runner_diffusers.media.results import result_of
from runner_diffusers.media.writing import encoded
from runner_diffusers.pipelines import components
from runner_diffusers.pipelines.params import DEFAULT_FPS, RATES
from runner_diffusers.pipelines.signature import defaults
from runner_diffusers.replay.call import PipelineCall, cast_arguments, own_guiders
from runner_diffusers.replay.loop import Loop, LoopState
from runner_diffusers.replay.parts import parts_of, scheduler_of
from runner_diffusers.replay.playing import playback
from runner_diffusers.replay.random import seeded
from runner_diffusers.tiling import set_tiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item
    from runner_diffusers.media.writing import Result
    from runner_diffusers.replay.views import Arguments


def start(ctx: Context) -> Callable[[Item], dict[str, bytes]]:
    """Load the VAE; the returned function makes one item's picture, clip or sound, as a file's bytes."""
    decoded = decoder(ctx)

    def one(item: Item) -> dict[str, bytes]:
        written = encoded(decoded(item), item.params.format)
        for note in written.notes:
            item.note(note)
        return {"output": written.data}

    return one


def decoder(ctx: Context) -> Callable[[Item], Result]:
    """Load the VAE; the returned function makes one item's picture, clip or sound, as numbers."""
    parts = parts_of(ctx, components.decode)

    def one(item: Item) -> Result:
        params, denoised = item.params, item.inputs["denoised"]
        own = replace(parts, components=scheduler_of(parts, denoised.values["scheduler"]))
        guiders = own_guiders(own)
        generator = seeded(denoised.values["seed"], ctx.device)

        def decode(name: str, call: Arguments) -> Any:
            set_tiles(call.owner, call.latents, params.tiling, getattr(params, "temporal", "auto"))
            decoded = cast_arguments(call, own.dtypes.get(name), {*own.dtypes.values()})()
            for leaf in pytree.tree_leaves(decoded):
                # only then: a check that passes ends the engine's own, which sees what a VAE cuts off
                if isinstance(leaf, torch.Tensor) and not bool(torch.isfinite(leaf).all()):
                    item.check_finite("output", leaf)
            return decoded

        state = LoopState(denoised.tensors, denoised.values["loop"])
        loop = Loop(generator, [*guiders.values()], ctx.device, state, has_denoisers=False)
        call = PipelineCall(own, playback(item.inputs["encoded"], own), guiders, loop, decode)
        given = unpacked_arguments(denoised.values["arguments"])
        returned = call.run({**given, **call_arguments(params)}, generator)
        made_with = {**given, "seed": denoised.values["seed"]}
        return result_of(call.pipeline, returned, made_with, frame_rate(params, given))

    return one


def frame_rate(params: Any, given: dict[str, Any]) -> float:
    """Frames a second of the file: the stage's ``fps``, else the rate that the pipeline was called with.

    ``given`` has only the keywords that differ from the pipeline's defaults, so these are asked too.
    """
    if fps := getattr(params, "fps", None):
        return float(fps)
    called_with = {**defaults(params.pipeline_source()), **given}
    return float(next((rate for name in RATES if (rate := called_with.get(name))), DEFAULT_FPS))
