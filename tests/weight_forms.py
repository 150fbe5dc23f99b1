"""A small FLUX transformer with weights in each form, placed in each way, beside diffusers' own."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes_weights import FORMS as BITSANDBYTES
from bitsandbytes_weights import config_of, load_quantised, write_quantised
from odd_models import PLACED
from single_files import products, scaled_fp8, unaligned, weights_of, write, write_gguf
from towers import together

from runner.api import Component
from runner.model.files import open_component, open_file
from runner.placement.loader import ComponentLoader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.model.files import ComponentFiles
    from runner.placements import ComponentPlacement

HALF = torch.bfloat16
GGML = (
    "Q8_0",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
    "BF16",
)
"""Each type that diffusers dequantises."""
BLOCKS = ("transformer_blocks", "single_transformer_blocks")
ONE_BY_ONE = ("device-map disk", "sequential-offload")
"""Of ``PLACED``: a weight is on the device only while it is computed with."""
CALLS = 2
WIDTH = 256  # the K types have blocks of as many numbers


def make(folder: Path, form: str) -> Path:
    """Write the transformer's weights in a form; beside them is the plain one."""
    import diffusers

    torch.manual_seed(0)
    model = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=64,
        num_attention_heads=WIDTH // 64,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=32,
        axes_dims_rope=(16, 24, 24),
    )
    model.to(HALF).save_pretrained(folder / "plain")
    weights = weights_of(folder / "plain")
    if form in GGML:
        write_gguf(folder / "single.gguf", weights, form)
    elif form == "fp8 scaled":
        write(folder / "single.safetensors", scaled_fp8(weights, rows=True))
    elif form in BITSANDBYTES:
        cls = diffusers.FluxTransformer2DModel
        write_quantised(folder / "plain", folder / "quantised", cls, config_of(form), HALF)
    elif form == "not aligned":
        unaligned(write(folder / "single.safetensors", weights))
    elif form in ("int8", "fp8"):
        _quantised(folder / "plain", form).save_pretrained(folder / "quantised")
    return folder


def _quantised(folder: Path, scheme: str) -> Any:
    from diffusers import FluxTransformer2DModel, TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    config = TorchAoConfig({"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[scheme]())
    return FluxTransformer2DModel.from_pretrained(folder, quantization_config=config, torch_dtype=HALF)


def opened(folder: Path) -> ComponentFiles:
    """The files of the form that is there."""
    component = Component("transformer", "diffusers:FluxTransformer2DModel", "plain")
    if (folder / "quantised").exists():
        return open_component(folder, replace(component, folder="quantised"))
    config = open_component(folder, replace(component, config_only=True))
    (name,) = (path.name for path in folder.iterdir() if path.is_file())
    return replace(open_file(folder, component, name), configured=config)


def theirs(folder: Path, form: str) -> Any:
    """The transformer as diffusers loads it, on memory of its own."""
    import diffusers

    cls = diffusers.FluxTransformer2DModel
    options: dict[str, Any] = {"torch_dtype": HALF}
    if form in GGML:
        options |= {
            "config": str(folder / "plain"),
            "quantization_config": diffusers.GGUFQuantizationConfig(compute_dtype=HALF),
        }
        return cls.from_single_file(str(folder / "single.gguf"), **options).eval()
    if form == "not aligned":
        return cls.from_pretrained(folder / "plain", **options).eval()
    if form == "fp8 scaled":
        from safetensors.torch import load_file

        model = cls.from_config(json.loads((folder / "plain/config.json").read_text())).to(HALF)
        plain = products(load_file(folder / "single.safetensors"))
        model.load_state_dict({name: weight.to(HALF) for name, weight in plain.items()})
        return model.eval()
    if form in BITSANDBYTES:
        return load_quantised(folder / "quantised", cls, HALF)
    return cls.from_pretrained(folder / "quantised", **options).eval()


def call(model: Any, number: int, device: str = "cpu") -> torch.Tensor:
    """One step of a call, with inputs of its own."""
    drawn = torch.Generator().manual_seed(number)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=drawn).to(device, HALF)

    tokens = 16 + 4 * number
    with torch.inference_mode():
        (made,) = model(
            hidden_states=random(1, tokens, 16),
            timestep=torch.tensor([0.5], dtype=HALF, device=device),
            pooled_projections=random(1, 32),
            encoder_hidden_states=random(1, 8, WIDTH),
            txt_ids=torch.zeros(8, 3, device=device),
            img_ids=torch.zeros(tokens, 3, device=device),
            return_dict=False,
        )
    return torch.as_tensor(made).cpu()


def made(
    folder: Path, placement: ComponentPlacement, device: str = "cpu"
) -> tuple[list[torch.Tensor], ComponentLoader]:
    """What the calls make with our placement, in lockstep where it streams."""
    import diffusers

    loader = ComponentLoader(torch.device(device), HALF)
    model = loader.load(diffusers.FluxTransformer2DModel, opened(folder), placement)
    calls = [partial(call, model, number, device) for number in range(CALLS)]
    results = together(loader.stream, calls) if loader.stream.active else [one() for one in calls]
    loader.stream.close()
    return results, loader


def compare(folder: str, form: str, names: Sequence[str], policies: Sequence[str]) -> Mapping[str, str]:
    """What is wrong with each placement on the simulated device: nothing, where it has the CPU's bits, and those
    that load weights for each operation hold less than half of what ``resident`` holds.
    """
    import torch._dynamo
    import torch_sim

    torch._dynamo.config.disable = (
        True  # bitsandbytes would compile its functions for the device, for minutes
    )
    with torch.inference_mode(mode=False):  # torchao's tensors lack what loading needs in it
        model = theirs(Path(folder), form)
    expected = [call(model, number) for number in range(CALLS)]
    found, held = {}, dict[str, int]()
    for name in names:
        wrong: list[str] = []
        gc.collect()  # models with hooks are in circles
        torch.accelerator.reset_peak_memory_stats()
        for policy in policies:
            torch_sim.set_policy(policy, 0)
            try:
                results = made(Path(folder), PLACED[name], "sim:0")[0]
                torch.accelerator.synchronize()
                right = all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
                wrong += [] if right else ["other bits"]
            except Exception as error:
                wrong += [f"{type(error).__name__}: {error}"[:300]]
            wrong += torch_sim.take_violations()
        held[name] = torch.accelerator.max_memory_allocated()
        if name in ONE_BY_ONE and 2 * held[name] > held["resident"]:
            wrong.append(f"{held[name]} bytes of {held['resident']} on the device")
        found[name] = "; ".join(wrong)
    return found
