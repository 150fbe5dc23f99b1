"""Weights that their library casts on loading: streamed and mapped all the same, and the same bits."""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from component_loading import place, reference
from diffusers import ConfigMixin, ModelMixin, WanTransformer3DModel
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from towers import numbers, stored_bytes
from transformers import T5Config, T5EncoderModel

from runner.api import Component
from runner.model.files import open_component
from runner.placement.library import open_module
from runner.placement.loader import ComponentLoader
from runner.stream.blocks import OffloadedParameter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
STORED = {"float32": [FLOAT32], "mixed": [FLOAT32, BFLOAT16, FLOAT16]}


class Ramp(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """It computes numbers that no file has, in the dtype that it is loaded in."""

    _keep_in_fp32_modules = ("scale",)

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(4))
        self.scale = torch.nn.Parameter(torch.randn(width))
        self.register_buffer("ramp", torch.linspace(0, 1, width).cumsum(0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x + self.ramp) * self.scale.to(x.dtype)
        return x


def save(model: Any, folder: Path, dtypes: Sequence[torch.dtype]) -> Path:
    """The model, its weights stored in these dtypes in turn."""
    model.save_pretrained(folder)
    (file,) = folder.glob("*.safetensors")
    weights = zip(sorted(load_file(file).items()), cycle(dtypes), strict=False)
    save_file({name: weight.to(dtype) for (name, weight), dtype in weights}, file, {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    t5 = T5Config(vocab_size=154, d_model=24, d_ff=56, d_kv=8, num_heads=3, num_layers=4)
    made = {
        "t5": T5EncoderModel(t5),
        "wan": WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=4,
            text_dim=16,
            freq_dim=16,
            ffn_dim=40,
            num_layers=3,
            rope_max_seq_len=32,
        ),
        "ramp": Ramp(),
    }
    folder = tmp_path_factory.mktemp("models")
    for stored, dtypes in STORED.items():
        for name, model in made.items():
            save(model, folder / f"{name}-{stored}", dtypes)
    return folder


def of_t5(module: Any) -> torch.Tensor:
    return module(torch.arange(1, 25)[None])[0]


def of_wan(module: Any) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return module(
        hidden_states=torch.randn(1, 4, 2, 4, 6, generator=rng).to(module.dtype),
        timestep=torch.tensor([500]),
        encoder_hidden_states=torch.randn(1, 7, 16, generator=rng).to(module.dtype),
    ).sample


def of_ramp(module: Any) -> torch.Tensor:
    return module(numbers(1, dtype=module.dtype))


CASES = [
    ("t5", T5EncoderModel, of_t5, "encoder.block"),
    ("wan", WanTransformer3DModel, of_wan, "blocks"),
    ("ramp", Ramp, of_ramp, "blocks"),
]


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16, FLOAT16])
@pytest.mark.parametrize(("name", "cls", "run", "blocks"), CASES)
def test_what_is_cast_is_brought_and_computes_what_its_library_does(
    models: Path,
    name: str,
    cls: type,
    run: Callable[[Any], torch.Tensor],
    blocks: str,
    dtype: torch.dtype,
    stored: str,
) -> None:
    folder = models / f"{name}-{stored}"
    with torch.inference_mode():
        library = reference(cls, folder, dtype)
        expected = run(library)
        assert expected.isfinite().all()
        for placement in ("resident", "device-map", "stream"):
            worker = ComponentLoader(torch.device("cpu"), dtype)
            module = place(placement, cls, folder, dtype, {blocks: "disk"}, loader=worker)
            away = {n for n, weight in module.named_parameters() if isinstance(weight, OffloadedParameter)}
            assert away == (
                {n for n, _ in module.named_parameters() if n.startswith(f"{blocks}.")}
                if placement != "resident"
                else set()
            )
            dtypes = {n: weight.dtype for n, weight in library.state_dict().items()}
            assert {n: weight.dtype for n, weight in module.state_dict().items()} == dtypes
            for _ in range(2):
                assert torch.equal(run(module), expected)
    # two passes, and the first block once more, ahead of a third
    assert worker.stream.bytes_read == 2 * stored_bytes(folder, [blocks]) + stored_bytes(
        folder, [f"{blocks}.0"]
    )


class Doubled(Ramp):
    """It makes other numbers of its weights when it is loaded."""

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        loaded = super().from_pretrained(*arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        with torch.no_grad():
            model.blocks[1].weight[3:].mul_(2)
            model.blocks[2].bias.data.neg_()
        return loaded


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16])
def test_a_class_that_computes_with_its_weights_on_loading(models: Path, dtype: torch.dtype) -> None:
    folder = models / "ramp-float32"
    with torch.inference_mode():
        expected = of_ramp(reference(Doubled, folder, dtype))
        assert not torch.equal(expected, of_ramp(reference(Ramp, folder, dtype)))
        for placement in ("resident", "device-map", "stream"):
            module = place(placement, Doubled, folder, dtype, {"blocks": "disk"})
            assert torch.equal(of_ramp(module), expected)


@pytest.mark.parametrize(
    ("declared", "warning"),
    [
        ({}, "4 weights differ (such as encoder.block.0.layer.1.DenseReluDense.wo.weight)"),
        ({"float16": ("wo",)}, ""),
        (
            {"float16": ("wo", "wi"), "bfloat16": ("wo",)},
            "4 weights differ (such as encoder.block.0.layer.1.DenseReluDense.wi",
        ),
    ],
)
def test_what_a_plugin_says_stays_in_float32_is_held_against_what_does(
    models: Path, caplog: pytest.LogCaptureFixture, declared: dict[str, tuple[str, ...]], warning: str
) -> None:
    component = Component("t5-float32", "transformers:T5EncoderModel", float32=declared)
    open_module(T5EncoderModel, open_component(models, component), FLOAT16)
    assert warning in caplog.text
    assert bool(warning) == bool(caplog.text)
