"""``device-map`` and the offloads: what comes when it runs computes what stays, to the bit."""

# mypy: disable-error-code="func-returns-value,no-any-return"

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import DEMO, make_flux
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.hooks.group_offloading import ModuleGroup
from placing import place
from safetensors.torch import save_file
from transformers import CLIPTextModel, T5EncoderModel

from runner.placement import dispatched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.protocol import Placing


def ids() -> torch.Tensor:
    return torch.arange(1, 25)[None]


def of_clip(module: Any) -> torch.Tensor:
    return module(ids()).pooler_output


def of_t5(module: Any) -> torch.Tensor:
    return module(ids())[0]


def of_vae(module: Any) -> torch.Tensor:
    latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    return module.decode(latents.to(module.dtype)).sample


def of_transformer(module: Any) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    config, dtype = module.config, module.dtype
    return module(
        hidden_states=torch.randn(1, 16, 64, generator=rng).to(dtype),
        encoder_hidden_states=torch.randn(1, 8, config.joint_attention_dim, generator=rng).to(dtype),
        pooled_projections=torch.randn(1, config.pooled_projection_dim, generator=rng).to(dtype),
        timestep=torch.tensor([0.5], dtype=dtype),
        guidance=torch.tensor([3.5], dtype=dtype),
        img_ids=torch.zeros(16, 3),
        txt_ids=torch.zeros(8, 3),
    ).sample


CASES = [
    (CLIPTextModel, "text_encoder", of_clip, {"text_model.encoder.layers.0": "disk"}),
    (CLIPTextModel, "text_encoder", of_clip, {"encoder.layers": "disk"}),
    (CLIPTextModel, "text_encoder", of_clip, {"encoder": "disk"}),
    (T5EncoderModel, "text_encoder_2", of_t5, {"encoder.block": "disk"}),
    (T5EncoderModel, "text_encoder_2", of_t5, {"encoder.block.0": "disk", "encoder.block.1": "disk"}),
    (AutoencoderKL, "vae", of_vae, {"decoder.up_blocks": "disk"}),
    (FluxTransformer2DModel, "transformer", of_transformer, {"transformer_blocks.1": "disk"}),
    (
        FluxTransformer2DModel,
        "transformer",
        of_transformer,
        {"single_transformer_blocks": "disk", "x_embedder": "device"},
    ),
]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T5 in shards without its tied embedding, the transformer in shards."""
    return make_flux(tmp_path_factory.mktemp("model"))


FLOAT, HALF = torch.float32, torch.bfloat16
# each pair of placement, dtype and origin, and each of them with every case
WAYS = [
    (("device-map", FLOAT, "demo"), ("stream", HALF, "sharded")),
    (("device-map", HALF, "demo"), ("stream", FLOAT, "sharded")),
    (("device-map", FLOAT, "sharded"), ("stream", HALF, "demo")),
    (("device-map", HALF, "sharded"), ("stream", FLOAT, "demo")),
]


@pytest.mark.parametrize(
    ("cls", "folder", "run", "device_map", "placement", "dtype", "origin"),
    [(*case, *way) for n, case in enumerate(CASES) for way in WAYS[n % len(WAYS)]],
)
def test_weights_on_disk_compute_what_resident_ones_do(
    cls: type,
    folder: str,
    run: Callable[[Any], torch.Tensor],
    device_map: dict[str, str],
    placement: str,
    dtype: torch.dtype,
    origin: str,
    sharded: Path,
) -> None:
    model = DEMO if origin == "demo" else sharded
    with torch.inference_mode():
        resident = run(place("resident", cls, model / folder, dtype))
        module = place(placement, cls, model / folder, dtype, device_map)
        assert module.dtype == dtype
        away = [name for name, weight in module.named_parameters() if weight.is_meta]
        assert away
        for _ in range(2):
            assert torch.equal(run(module), resident)
        if placement == "device-map":  # the last block streamed stays until another one comes
            assert away == [name for name, weight in module.named_parameters() if weight.is_meta]


OFFLOADED = [case[:3] for case in CASES[2::2]]


@pytest.mark.parametrize(("cls", "folder", "run"), OFFLOADED)
def test_sequential_offload_is_a_device_map_of_all_that_waits_in_ram(
    cls: type, folder: str, run: Callable[[Any], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the plan maps it; without an accelerator what is in RAM is where it computes."""
    maps: list[Any] = []
    load = dispatched.load

    def noted(opened: Any, device: torch.device, placing: Placing) -> Any:
        maps.append(placing.device_map)
        return load(opened, device, placing)

    monkeypatch.setattr(dispatched, "load", noted)
    with torch.inference_mode():
        resident = run(place("resident", cls, DEMO / folder, FLOAT))
        assert torch.equal(run(place("sequential-offload", cls, DEMO / folder, FLOAT, {"": "cpu"})), resident)
    assert maps == [{"": "cpu"}]


@pytest.mark.parametrize(("cls", "folder", "run"), OFFLOADED)
def test_group_offload_brings_each_layer_and_sends_it_back(
    cls: type, folder: str, run: Callable[[Any], torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU stands in for the device, so that it is the calls that tell, and not where weights are."""
    log: list[tuple[str, int]] = []
    for name in ("onload_", "offload_"):
        whole = getattr(ModuleGroup, name)
        monkeypatch.setattr(
            ModuleGroup,
            name,
            lambda group, _name=name, _whole=whole: (log.append((_name, id(group))), _whole(group))[1],
        )
    with torch.inference_mode():
        resident = run(place("resident", cls, DEMO / folder, FLOAT))
        module = place("group-offload", cls, DEMO / folder, FLOAT)
        log.clear()
        assert torch.equal(run(module), resident)
    brought, sent = (
        Counter(group for name, group in log if name == kind) for kind in ("onload_", "offload_")
    )
    assert brought
    assert brought == sent


class Tied(torch.nn.Module):
    """Its head has no call of its own: it multiplies with the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 8)
        self.middle = torch.nn.Linear(8, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.middle(self.embed(ids)) @ self.embed.weight.T


def test_a_weight_that_is_away_refuses_to_be_computed_with(tmp_path: Path) -> None:
    model = Tied()
    (tmp_path / "net").mkdir()
    save_file(model.state_dict(), tmp_path / "net/model.safetensors")
    ids = torch.arange(5)
    with torch.inference_mode():
        assert torch.equal(
            place("device-map", Tied, tmp_path / "net", torch.float32, {"middle": "disk"})(ids), model(ids)
        )
        away = place("device-map", Tied, tmp_path / "net", torch.float32, {"": "disk"})
        for _ in range(2):
            with pytest.raises(RuntimeError, match="outside of its own block's or layer's call"):
                away(ids)
