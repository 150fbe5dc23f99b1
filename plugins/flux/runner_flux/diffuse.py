"""The diffuse stage: embeddings to latents, with one unmodified FluxPipeline call for each item."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item

COMPONENTS = (FluxTransformer2DModel, FlowMatchEulerDiscreteScheduler)
TENSORS = (
    "prompt_embeds",
    "pooled_prompt_embeds",
    "negative_prompt_embeds",
    "negative_pooled_prompt_embeds",
)


class ResumedScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """A scheduler that leaves out the first ``done`` steps, for an item that is resumed."""

    done = 0
    timesteps: torch.Tensor
    sigmas: torch.Tensor

    @wraps(FlowMatchEulerDiscreteScheduler.set_timesteps)  # pipelines inspect its signature
    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.timesteps, self.sigmas = self.timesteps[self.done :], self.sigmas[self.done :]


def start(ctx: Context) -> Callable[[Item], dict[str, torch.Tensor]]:
    """Load the transformer; the returned function makes one item's (C, H, W) latents."""
    transformer = ctx.load("transformer")
    scheduler = ctx.load("scheduler")
    scale = 2 ** (len(ctx.config("vae")["block_out_channels"]) - 1)

    def one(item: Item) -> dict[str, torch.Tensor]:
        params = item.params
        if params.true_cfg_scale > 1 and "negative_prompt_embeds" not in item.inputs:
            # runner_flux.checks refuses it before the run, but not for another plugin's encode stage
            raise ValueError('true_cfg_scale over 1 needs a negative_prompt (it may be "")')
        # a pipeline and a scheduler of the item's own: both keep state between steps
        schedule = ResumedScheduler.from_config(scheduler.config)
        latents = None
        if item.saved is not None:
            schedule.done = item.saved.step
            latents = item.saved.state.to(ctx.device)
        done = schedule.done
        pipeline = FluxPipeline(
            scheduler=schedule,
            vae=None,
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=transformer,
        )
        pipeline.vae_scale_factor = scale
        pipeline.set_progress_bar_config(disable=True)
        embeds = {
            name: item.inputs[name][None].to(ctx.device, ctx.dtype) for name in TENSORS if name in item.inputs
        }

        def on_step(_pipeline: Any, step: int, _time: Any, state: dict[str, Any]) -> dict[str, Any]:
            item.check_finite("latents", state["latents"])  # at once, not after all steps
            item.step(done + step + 1, params.steps, state["latents"])
            return state

        packed = pipeline(
            **embeds,
            height=params.height,
            width=params.width,
            num_inference_steps=params.steps,
            guidance_scale=params.guidance_scale,
            true_cfg_scale=params.true_cfg_scale,
            # on the CPU, so that all devices start from the same noise
            generator=torch.Generator("cpu").manual_seed(params.seed),
            latents=latents,
            output_type="latent",
            callback_on_step_end=on_step,
        ).images
        unpacked = pipeline._unpack_latents(packed, params.height, params.width, scale)  # noqa: SLF001
        return {"latents": unpacked[0]}

    return one
