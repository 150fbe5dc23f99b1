"""Components as a stage loads them: once, as planned, with errors that name broken files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from checkpoints import DEMO
from safetensors.torch import save_file
from worker_job import STAGE, job_of

from runner.api import Component
from runner.errors import ModelError
from runner.model.files import ComponentPlace
from runner.placements import STREAM, ComponentPlacement
from runner.stream.blocks import OffloadedParameter
from runner.worker import context as context_module
from runner.worker.context import WorkerContext

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Stage


class Net(torch.nn.Module):
    """Plain blocks, made from ``config.json``."""

    def __init__(self, width: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with the component ``net``."""
    (tmp_path / "net").mkdir()
    save_file(Net().state_dict(), tmp_path / "net/model.safetensors")
    (tmp_path / "net/config.json").write_text(json.dumps({"width": 4, "depth": 3}))
    monkeypatch.setattr(context_module, "load_object", lambda _: Net)
    return tmp_path


def context(folder: Path, placement: ComponentPlacement | None = None) -> WorkerContext:
    component = Component("net", "here:Net")
    placements = {"net": placement} if placement else {}
    stage = replace(STAGE, components=(component,))
    return WorkerContext(job_of([], stage=stage, components=places(stage, folder), placements=placements))


def places(stage: Stage, folder: Path) -> dict[str, ComponentPlace]:
    """The places of a stage's components in one model folder."""
    assert not isinstance(stage.components, str)
    return {component.name: ComponentPlace(component, folder, None) for component in stage.components}


def test_a_component_is_loaded_once(net: Path) -> None:
    ctx = context(net)
    loaded = ctx.load("net")
    assert ctx.load("net") is loaded
    assert loaded(torch.ones(1, 4)).shape == (1, 4)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert ctx.config("net") == {"width": 4, "depth": 3}
    assert not ctx.stream.active


def test_it_is_placed_as_planned(net: Path) -> None:
    ctx = context(net, ComponentPlacement(STREAM, {"layers": "disk"}))
    resident = context(net).load("net")
    streamed = ctx.load("net")
    assert ctx.stream.active
    assert all(isinstance(parameter, OffloadedParameter) for parameter in streamed.layers[2].parameters())
    with torch.inference_mode():
        assert torch.equal(streamed(torch.ones(1, 4)), resident(torch.ones(1, 4)))


def test_items_end_at_its_blocks(net: Path) -> None:
    loaded = context(net).load("net")
    assert all(layer._forward_pre_hooks for layer in loaded.layers)


def test_what_is_not_declared_is_not_there(net: Path) -> None:
    with pytest.raises(LookupError, match="declares no component 'other'"):
        context(net).load("other")
    with pytest.raises(LookupError, match="declares no component 'net'"):
        WorkerContext(job_of([])).load("net")


def test_files_that_do_not_fit_are_a_broken_model(net: Path) -> None:
    (net / "net/config.json").write_text(json.dumps({"width": 5, "depth": 3}))
    with pytest.raises(
        ModelError, match=r"component 'net': the files in .*net hold 6 weights of another shape"
    ):
        context(net).load("net")


def fails_with(monkeypatch: pytest.MonkeyPatch, error: Exception, *, library: bool) -> None:
    class Broken(Net):
        if library:

            @classmethod
            def from_pretrained(cls, *_: Any, **__: Any) -> Any:
                raise error

        else:

            def __init__(self, **_: Any) -> None:
                raise error

    monkeypatch.setattr(context_module, "load_object", lambda _: Broken)


def test_what_a_library_says_of_its_files(
    net: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fails_with(monkeypatch, ValueError("odd" * 1000 + "\nmore"), library=True)
    with pytest.raises(ModelError, match="cannot be loaded from") as failed:
        context(net).load("net")
    assert len(str(failed.value)) < 1000
    assert "more" not in str(failed.value)
    assert "more" in capfd.readouterr().err  # whole in the log


@pytest.mark.parametrize("library", [True, False])
def test_out_of_memory_is_no_broken_model(net: Path, monkeypatch: pytest.MonkeyPatch, library: bool) -> None:
    fails_with(monkeypatch, MemoryError("7 bytes"), library=library)
    with pytest.raises(MemoryError):
        context(net).load("net")


def test_a_plugins_own_error_is_its_own(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails_with(monkeypatch, ValueError("of the class"), library=False)
    with pytest.raises(ValueError, match="of the class"):
        context(net).load("net")


def test_tokenizers_are_just_loaded() -> None:
    tokenizer = Component("tokenizer", "transformers:CLIPTokenizer")
    stage = replace(STAGE, components=(tokenizer,))
    ctx = WorkerContext(job_of([], stage=stage, components=places(stage, DEMO)))
    assert ctx.load("tokenizer")("a red circle")["input_ids"]
