"""Modules of classes without ``from_pretrained``: mapped from their files, whatever their classes are like."""

# mypy: disable-error-code="no-any-return,operator"

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
import weighty_plugin
from component_loading import place
from safetensors.torch import load_file, save_file
from towers import stored_bytes

from runner.errors import ModelError
from runner.placement.loader import ComponentLoader

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

WIDTH = 8


class Plain(torch.nn.Module):
    """Weights with two names, in one module and across modules; a class that keeps account of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, width)
        self.lstm = torch.nn.LSTM(width, width)
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(3))
        self.blocks[2].weight = self.blocks[0].weight
        self.head = torch.nn.Linear(width, 7, bias=False)
        self.head.weight = self.embed.weight
        both = torch.nn.Parameter(torch.randn(width))
        self.one, self.other = both, both
        self.register_buffer("table", torch.linspace(0, 1, width), persistent=False)
        self.register_buffer("count", torch.tensor([3]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.lstm(self.embed(x) + self.table)
        for block in self.blocks:
            x = block(x) * self.one + self.other
        return self.head(x) * self.count


class Curious(Plain):
    """It looks at its parameters when it is made."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.finite = bool(self.one.isfinite().all())


class Derived(Plain):
    """It makes numbers of its parameters when it is made."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.register_buffer("ones", self.one.detach() * 0 + 1, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.ones.sum()


class Beside(Plain):
    """It makes a tensor where its parameters are, and keeps it as no buffer."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.mix = {"eye": torch.eye(7, device=self.one.device)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x @ self.mix["eye"].to(x.dtype)


def write(model: torch.nn.Module, folder: Path, stored: torch.dtype, without: tuple[str, ...] = ()) -> None:
    weights = {
        name: (weight.to(stored) if weight.is_floating_point() else weight.int()).clone()
        for name, weight in model.state_dict().items()
        if name not in without
    }
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(f'{{"width": {WIDTH}}}')


def loaded(model: Any, stored: torch.dtype, dtype: torch.dtype) -> Any:
    """The model as if it had been stored and loaded in these dtypes."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(stored if name in model.state_dict() else tensor.dtype).to(dtype)
    return model.eval()


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cls", [Plain, Curious, Derived, Beside])
def test_it_streams_and_what_has_two_names_is_one(
    tmp_path: Path, cls: type, dtype: torch.dtype, stored: torch.dtype
) -> None:
    model = cls(WIDTH)
    write(model, tmp_path / "net", stored)
    ids = torch.arange(1, 7)
    with torch.inference_mode():
        expected = loaded(model, stored, dtype)(ids)
        for placement in ("resident", "device-map", "stream"):
            worker = ComponentLoader(torch.device("cpu"), dtype)
            module = place(placement, cls, tmp_path / "net", dtype, {"blocks": "disk"}, loader=worker)
            assert module.head.weight is module.embed.weight
            assert module.one is module.other
            assert module.count.dtype == torch.int64
            result = module(ids)
            assert result.dtype == dtype
            assert torch.equal(result, expected)
    first = stored_bytes(tmp_path / "net", ["blocks.0"])
    # the files have the tied weight twice, and one of them is read for both
    assert worker.stream.bytes_read == stored_bytes(tmp_path / "net") + first


@pytest.mark.parametrize("without", [("head.weight", "blocks.2.weight", "other"), ("embed.weight", "one")])
def test_a_file_may_have_what_is_tied_under_one_name(tmp_path: Path, without: tuple[str, ...]) -> None:
    model = Plain(WIDTH)
    write(model, tmp_path / "net", torch.float32, without)
    module = place("resident", Plain, tmp_path / "net", torch.float32)
    assert all(torch.equal(w, module.state_dict()[n]) for n, w in model.state_dict().items())


@pytest.mark.parametrize("without", [("one", "other"), ("count",), ("lstm.weight_hh_l0",)])
def test_what_no_file_has_is_reported(tmp_path: Path, without: tuple[str, ...]) -> None:
    write(Plain(WIDTH), tmp_path / "net", torch.float32, without)
    with pytest.raises(ModelError, match=rf"lack .* of Plain \({without[0]}"):
        place("resident", Plain, tmp_path / "net", torch.float32)


def test_an_error_of_its_class_is_raised(tmp_path: Path) -> None:
    write(Plain(WIDTH), tmp_path / "net", torch.float32)
    (tmp_path / "net/config.json").write_text('{"height": 3}')
    with pytest.raises(TypeError, match="unexpected keyword argument 'height'"):
        place("resident", Plain, tmp_path / "net", torch.float32)


def test_one_that_is_larger_than_the_budget_is_never_there_as_a_whole(project: Project) -> None:
    weighty_plugin.install(project)  # 165 MiB of weights; libraries and activations take 185
    done = {}
    for dtype in ("float32", "bfloat16"):
        for ram in ("600MiB", "250MiB"):
            sets = (f"budget.ram={ram}", f"stage.run.dtype={dtype}", "run.on_oom=fail")
            options = [word for setting in sets for word in ("--set", setting)]
            outcome = project.runner("run", "weighty.toml", "--json", "--fresh", *options)
            assert outcome.code == 0, outcome
            (stage,) = outcome.of("stage_started")
            done[ram] = stage["placement"], handoffs(project)
        assert (done["600MiB"][0], done["250MiB"][0]) == ("resident", "stream")
        assert done["600MiB"][1] == done["250MiB"][1]


def handoffs(project: Project) -> set[bytes]:
    """The tensors that the last run left, without the metadata around them."""
    files = sorted((project.folder / "runs/weighty/handoff/run").glob("*.safetensors"), key=os.path.getmtime)
    return {load_file(file)["y"].view(torch.uint8).numpy().tobytes() for file in files[-2:]}
