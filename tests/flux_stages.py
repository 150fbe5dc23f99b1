"""The flux plugin's stages at any size, on fake tensors or real ones, and what their items hold."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import torch
from checkpoints import DEMO, DEV
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from live_bytes import LiveBytes, allocator_peak
from runner_flux import memory
from torch._subclasses import FakeTensorMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from runner.api import Sizes
from runner.stream.blocks import find_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

# FLUX.1-dev as published, in four layers: what a layer holds is gone when the next one comes
FLUX: dict[str, dict[str, Any]] = {
    "text_encoder": {
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 2,
        "num_attention_heads": 12, "max_position_embeddings": 77, "bos_token_id": 0, "eos_token_id": 2,
        "pad_token_id": 1,
    },
    "text_encoder_2": {
        "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_heads": 64, "num_layers": 2,
        "feed_forward_proj": "gated-gelu",
    },
    "transformer": {
        "in_channels": 64, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
        "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
    },
    "vae": {
        "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 1024, "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "scheduler": DEV,
}  # fmt: skip
FULL = {
    **FLUX,
    "text_encoder": {**FLUX["text_encoder"], "num_hidden_layers": 12},
    "text_encoder_2": {**FLUX["text_encoder_2"], "num_layers": 24},
    "transformer": {**FLUX["transformer"], "num_layers": 19, "num_single_layers": 38},
}
SMALL: dict[str, dict[str, Any]] = {
    "text_encoder": {
        **FLUX["text_encoder"], "vocab_size": 801, "hidden_size": 64, "intermediate_size": 256,
        "num_attention_heads": 4,
    },
    "text_encoder_2": {
        **FLUX["text_encoder_2"], "vocab_size": 154, "d_model": 96, "d_kv": 16, "d_ff": 320, "num_heads": 5,
    },
    "transformer": {
        **FLUX["transformer"], "num_attention_heads": 3, "attention_head_dim": 32, "axes_dims_rope": (8, 12, 12),
        "joint_attention_dim": 96, "pooled_projection_dim": 64,
    },
    "vae": {**FLUX["vae"], "block_out_channels": (32, 64, 128, 128)},
    "scheduler": DEV,
}  # fmt: skip
# so narrow that the picture weighs more than what it is made from
NARROW = {**SMALL, "vae": {**FLUX["vae"], "block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2}}
PACKAGED = {
    path.parent.name: {k: v for k, v in json.loads(path.read_text()).items() if not k.startswith("_")}
    for path in DEMO.glob("*/*config.json")
}
CONFIGS = {"flux": FLUX, "full": FULL, "small": SMALL, "narrow": NARROW, "demo": PACKAGED}

MAKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "text_encoder_2": lambda config: T5EncoderModel(T5Config(**config)),
    "transformer": lambda config: FluxTransformer2DModel(**config),
    "vae": lambda config: AutoencoderKL(**config),
    "scheduler": lambda config: FlowMatchEulerDiscreteScheduler(**config),
    "tokenizer": lambda _: CLIPTokenizer.from_pretrained(DEMO / "tokenizer"),
    "tokenizer_2": lambda _: T5TokenizerFast.from_pretrained(DEMO / "tokenizer_2"),
}
WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "tokenizer_2")


class Context:
    device = torch.device("cpu")

    def __init__(self, configs: Mapping[str, Any], dtype: str) -> None:
        self.dtype = getattr(torch, dtype)
        self.modules: list[torch.nn.Module] = []
        self._configs = configs
        self._ready = {name: MAKERS[name](configs.get(name, {})) for name in WITHOUT_WEIGHTS}

    def config(self, component: str) -> Any:
        return self._configs[component]

    def load(self, component: str) -> Any:
        if component in self._ready:
            return self._ready[component]
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)
        try:
            module = MAKERS[component](self._configs[component]).eval().requires_grad_(requires_grad=False)
        finally:
            torch.set_default_dtype(before)
        if component == "text_encoder_2" and self.dtype == torch.float16:
            for block in module.encoder.block:  # kept in float32, as its component says
                wo = block.layer[1].DenseReluDense.wo
                wo.weight = torch.nn.Parameter(wo.weight.float(), requires_grad=False)
        self.modules.append(module)
        return module


class Item:
    def __init__(self, params: Any, inputs: dict[str, torch.Tensor]) -> None:
        self.id, self.params, self.inputs, self.saved = "item", params, inputs, None

    def step(self, *_: object) -> None:
        """Progress is reported to nobody."""

    def warn(self, *_: object, **__: object) -> None:
        """The prompts are made up."""

    note = warn

    def check_finite(self, *_: object) -> None:
        """The numbers are made up."""


def started(
    stage: Any, params: Any, context: Context, inputs: Mapping[str, tuple[int, ...]]
) -> tuple[list[torch.nn.Module], Callable[[Item], Any], Item]:
    """The stage's modules, its function for an item, and an item with random inputs of these shapes."""
    one = stage.start(context)
    made = {name: torch.randn(shape).to(context.dtype) for name, shape in inputs.items()}
    return context.modules, one, Item(params, made)


def measured(
    stage: Any,
    params: Any,
    configs: str,
    dtype: str,
    inputs: Mapping[str, tuple[int, ...]],
    *,
    fake: bool = True,
    on_a_card: bool = False,
) -> LiveBytes:
    """What the stage's code holds for one item. ``on_a_card`` leaves out what lies in RAM then."""
    context = Context(CONFIGS[configs], dtype)  # a scheduler reads its own numbers, which fake ones have not
    with FakeTensorMode() if fake else contextlib.nullcontext(), torch.inference_mode():
        modules, one, item = started(stage, params, context, inputs)
        handed = list(item.inputs.values())
        if on_a_card:  # of another dtype, so that they are copied as they would be to the card
            item.inputs = {name: tensor.double() for name, tensor in item.inputs.items()}
            live = LiveBytes([*modules, *item.inputs.values()])
        else:
            live = LiveBytes(modules, handed)
        del handed
        with live:
            one(item)
    return live


def held_at_blocks(
    stage: Any, params: Any, configs: str, dtype: str, inputs: Mapping[str, tuple[int, ...]]
) -> int:
    """The most bytes that are alive when a block is entered: what an item holds while it waits there."""
    context = Context(CONFIGS[configs], dtype)
    most = 0
    with FakeTensorMode(), torch.inference_mode():
        modules, one, item = started(stage, params, context, inputs)
        live = LiveBytes(modules, list(item.inputs.values()))

        def look(*_: object) -> None:
            nonlocal most
            most = max(most, live.now)

        for module in modules:
            for block in find_blocks(module, lambda name: name.rpartition(".")[2].isdigit()):
                block.module.register_forward_pre_hook(look)
        with live:
            one(item)
    return most


def holds(predicted: int, live: LiveBytes) -> None:
    """Never less than is held; more by a percent and by `SCALARS` at the most."""
    assert live.peak <= predicted <= 1.01 * live.peak + memory.SCALARS, (
        f"{predicted:,} for {live.peak:,} at {live.at}"
    )


def sizes(configs: str, dtype: str, device: str = "cpu", **upstream: Any) -> Sizes:
    return Sizes(dtype, device, CONFIGS[configs], upstream)


def embeds(configs: str, tokens: int, *, negative: bool = True) -> dict[str, tuple[int, ...]]:
    config = CONFIGS[configs]["transformer"]
    return {
        f"{prefix}{name}": shape
        for prefix in (("", "negative_") if negative else ("",))
        for name, shape in (
            ("prompt_embeds", (tokens, config["joint_attention_dim"])),
            ("pooled_prompt_embeds", (config["pooled_projection_dim"],)),
        )
    }


def latents(height: int, width: int) -> dict[str, tuple[int, ...]]:
    return {"latents": (16, height // 8, width // 8)}


def given_out(
    folder: Path, stage: Any, params: Any, configs: str, inputs: dict[str, tuple[int, ...]], dtype: str
) -> int:
    """What torch's allocator gave out for a real item."""
    with torch.inference_mode():
        _, one, item = started(stage, params, Context(CONFIGS[configs], dtype), inputs)
        peak = allocator_peak(lambda: one(item), folder)
    return peak + sum(tensor.nbytes for tensor in item.inputs.values())


def instead(monkeypatch: pytest.MonkeyPatch, step: str, function: Callable[[Any], Any]) -> None:
    """Have another function take a step on the way from pixels to a picture."""
    monkeypatch.setattr(VaeImageProcessor, step, staticmethod(function))
