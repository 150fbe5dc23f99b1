"""The decode stage: the pipeline's tail, with what decodes, after the loop was run through with zeros."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner_diffusers.arguments import OUTPUT, call_arguments, unpacked_arguments
from runner_diffusers.media.outputs import made_by
from runner_diffusers.pipelines import components
from runner_diffusers.replay.call import PipelineCall, cast_arguments, own_guiders
from runner_diffusers.replay.loop import Loop, LoopState
from runner_diffusers.replay.parts import parts_of, scheduler_of
from runner_diffusers.replay.playing import playback
from runner_diffusers.replay.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item
    from runner_diffusers.replay.views import Arguments


def start(ctx: Context) -> Callable[[Item], dict[str, bytes]]:
    """Load the VAE; the returned function makes one item's picture, clip or sound."""
    parts = parts_of(ctx, components.decode)

    def one(item: Item) -> dict[str, bytes]:
        denoised = item.inputs["denoised"]
        state = LoopState(denoised.tensors, denoised.values["loop"])
        own = replace(parts, components=scheduler_of(parts, denoised.values["scheduler"]))
        guiders = own_guiders(own)
        arguments = {
            **unpacked_arguments(denoised.values["arguments"]),
            **call_arguments(item.params),
            **OUTPUT,
        }
        generator = seeded(denoised.values["seed"], ctx.device)

        def decode(name: str, call: Arguments) -> Any:
            return cast_arguments(call, own.dtypes.get(name), {*own.dtypes.values()})()

        loop = Loop(generator, [*guiders.values()], ctx.device, state)
        call = PipelineCall(own, playback(item.inputs["encoded"], own), guiders, loop, decode)
        made = made_by(call.run(arguments, generator))
        return {"output": made}

    return one
