"""``device-map`` and the offloads: what comes when it runs computes what stays, to the bit."""

# mypy: disable-error-code="func-returns-value,no-any-return"

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import DEMO, make_flux
from component_loading import place
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.hooks.group_offloading import ModuleGroup
from safetensors.torch import save_file
from transformers import CLIPTextModel, T5EncoderModel

from runner.stream.blocks import OffloadedParameter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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
        away = [name for name, weight in module.named_parameters() if isinstance(weight, OffloadedParameter)]
        assert away
        for _ in range(2):
            assert torch.equal(run(module), resident)
        if placement == "device-map":  # the last block streamed stays until another one comes
            assert away == [
                name for name, weight in module.named_parameters() if isinstance(weight, OffloadedParameter)
            ]


OFFLOADED = [case[:3] for case in CASES[2::2]]


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


class Odd(torch.nn.Module):
    """Weights that are used otherwise than in their own module's call, tied, bare, and a stored buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(5, 8)
        self.scale = torch.nn.Parameter(torch.rand(8))
        self.register_buffer("mean", torch.rand(8))
        self.register_buffer("computed", torch.rand(8), persistent=False)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
        self.attention = torch.nn.MultiheadAttention(8, 2)
        self.rnn = torch.nn.GRU(8, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.head = torch.nn.Linear(8, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(ids) * self.scale - self.mean
        for layer in self.layers:
            hidden = layer(hidden.to(next(self.parameters()).device))
        hidden = self.norm(self.rnn(self.attention(hidden, hidden, hidden)[0])[0])
        return self.head(hidden @ self.rnn.get_parameter("weight_hh_l0")[:8].T + self.embed.weight.data.sum())


def odd(folder: Path) -> Path:
    torch.manual_seed(3)
    model = Odd()
    folder.mkdir()
    weights = {name: weight for name, weight in model.state_dict().items() if name != "head.weight"}
    save_file(weights, folder / "model.safetensors")
    return folder


def of_odd(module: Any) -> torch.Tensor:
    module.computed = torch.zeros(8)
    return module(torch.arange(5))


NAMES = ["", "embed", "head", "scale", "mean", "layers.0", "layers.2.bias", "attention", "attention.out_proj"]
NAMES += ["attention.in_proj_weight", "rnn", "rnn.weight_hh_l0", "norm", "norm.running_var"]


@pytest.mark.parametrize("placement", ["device-map", "stream"])
@pytest.mark.parametrize("name", NAMES)
def test_any_weight_may_be_away_however_it_is_used(name: str, placement: str, tmp_path: Path) -> None:
    folder = odd(tmp_path / "net")
    with torch.inference_mode():
        expected = of_odd(place("resident", Odd, folder, torch.float32))
        module = place(placement, Odd, folder, torch.float32, {name: "disk"})
        assert any(isinstance(w, OffloadedParameter) for w in (*module.parameters(), *module.buffers()))
        for _ in range(2):
            assert torch.equal(of_odd(module), expected)
        assert module.embed.weight is module.head.weight


def test_what_is_written_to_a_weight_that_is_away_would_be_lost(tmp_path: Path) -> None:
    module = place("device-map", Odd, odd(tmp_path / "net"), torch.float32, {"": "disk"})
    for write in (
        lambda: module.scale.mul_(2),
        lambda: module.scale.__iadd__(1),
        lambda: module.scale.__setitem__(0, 1.0),
        lambda: setattr(module.scale, "data", torch.ones(8)),
    ):
        with torch.no_grad(), pytest.raises(RuntimeError, match="the change would be lost"):
            write()


MAPS = [
    {"": "disk"},
    {"": "disk", "{list}": "device"},
    {"": "disk", "{list}.1": "device"},
    {"{list}": "disk", "{list}.0": "device"},
    {"{first}": "disk"},
    {"{weight}": "disk"},
    {"{list}.0": "cpu", "{list}.1": "disk"},
]
PARTS = {  # a list of blocks, the first module that is used, a single weight
    "text_encoder": ("text_model.encoder.layers", "text_model.embeddings", "{list}.0.mlp.fc1.weight"),
    "text_encoder_2": ("encoder.block", "shared", "{list}.1.layer.1.layer_norm.weight"),
    "vae": ("decoder.up_blocks", "decoder.conv_in", "{list}.0.resnets.0.conv1.bias"),
    "transformer": ("single_transformer_blocks", "time_text_embed", "x_embedder.bias"),
}


@pytest.mark.parametrize("placement", ["device-map", "stream"])
@pytest.mark.parametrize(("cls", "folder", "run"), [CASES[n][:3] for n in (0, 3, 5, 6)])
def test_every_map_computes_what_resident_weights_do(
    cls: type, folder: str, run: Callable[[Any], torch.Tensor], placement: str, sharded: Path
) -> None:
    blocks, first, weight = PARTS[folder]
    parts = {"list": blocks, "first": first, "weight": weight.format(list=blocks)}
    with torch.inference_mode():
        expected = run(place("resident", cls, sharded / folder, torch.bfloat16))
        for device_map in MAPS:
            written = {name.format(**parts): tier for name, tier in device_map.items()}
            module = place(placement, cls, sharded / folder, torch.bfloat16, written)
            assert any(isinstance(weight, OffloadedParameter) for weight in module.parameters()), written
            assert module.device == torch.device("cpu")
            assert all(torch.equal(run(module), expected) for _ in range(2)), written
