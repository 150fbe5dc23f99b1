"""The denoise stage: the pipeline's loop, from what the encode stage recorded, or from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runner.api import Bundled
from runner_diffusers.arguments import call_arguments, packed_arguments
from runner_diffusers.pipelines import components
from runner_diffusers.replay.call import PipelineCall, own_guiders
from runner_diffusers.replay.loop import Loop, LoopState
from runner_diffusers.replay.parts import parts_of, scheduler_of
from runner_diffusers.replay.playing import playback
from runner_diffusers.replay.random import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item


def start(ctx: Context) -> Callable[[Item], dict[str, Bundled]]:
    """Load the denoisers; the returned function makes one item's latents, with the state of the loop."""
    parts = parts_of(ctx, components.denoise)

    def one(item: Item) -> dict[str, Bundled]:
        params = item.params
        chosen = getattr(params, "scheduler", None)
        own = replace(parts, components=scheduler_of(parts, chosen))
        guiders = own_guiders(own)
        generator = seeded(params.seed, ctx.device)
        saved = LoopState(*item.saved.state) if item.saved is not None else None

        def on_border() -> None:
            state = loop.state() if loop.can_be_continued else None
            saved = Bundled(state.tensors, state.values) if state is not None else None
            item.step(loop.iterations, loop.length, saved)

        loop = Loop(generator, [*guiders.values()], ctx.device, saved, on_border)
        call = PipelineCall(own, playback(item.inputs["encoded"], own), guiders, loop)
        call.run(call_arguments(params), generator)
        item.step(loop.iterations, loop.iterations)
        state = loop.state()
        for name, tensor in state.tensors.items():
            if name.startswith("result"):
                item.check_finite("denoised", tensor)
        values = {
            "loop": state.values,
            "arguments": packed_arguments(params),
            "scheduler": chosen,
            "seed": params.seed,
        }
        return {"denoised": Bundled(state.tensors, values)}

    return one
