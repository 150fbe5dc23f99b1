"""Which modules are blocks, whatever they are made of, and what becomes of their weights."""

# mypy: disable-error-code="assignment,func-returns-value,misc,override,union-attr"

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import AutoencoderKL
from towers import (
    HIDDEN,
    WIDTH,
    Layer,
    Tower,
    as_resident,
    as_streamed,
    make,
    named,
    numbers,
    together,
    write,
)

from runner.stream.blocks import find_blocks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def found(model: torch.nn.Module, *names: str) -> list[str]:
    return [block.name for block in find_blocks(model, named(*names))]


class Nested(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList(
            torch.nn.ModuleList([Layer(3), torch.nn.Sequential(Layer(4), Layer(5))]) for _ in range(2)
        )
        self.by_name = torch.nn.ModuleDict({"a": Layer(2), "b": Layer(2)})
        self.tower = Tower([4, 4])
        self.again = self.tower.blocks[0]


def test_blocks_are_members_of_lists_or_modules_by_name() -> None:
    model = Nested()
    assert found(model, "tower.blocks") == ["tower.blocks.0", "tower.blocks.1"]
    assert found(model, "tower.blocks.1") == ["tower.blocks.1"]
    assert found(model, "tower", "tower.blocks.0") == ["tower"]
    assert found(model, "by_name") == ["by_name.a", "by_name.b"]
    assert found(model, "nobody") == []


def test_lists_have_nothing_to_hook_so_their_members_are_blocks() -> None:
    model = Nested()
    stage = [".0", ".1.0", ".1.1"]
    assert found(model, "stages.1") == [f"stages.1{name}" for name in stage]
    assert found(model, "stages") == [f"stages.{n}{name}" for n in range(2) for name in stage]


def test_a_map_of_the_whole_component_streams_all_of_it() -> None:
    model = Nested()
    # but what is inside of another block already, by another name, is no block as well
    assert found(model, "") == [*found(model, "stages"), *found(model, "by_name"), "tower"]


def check(folder: Path, make_model: Callable[[], Any], *names: str) -> Any:
    """The streamed model, once it has computed what the resident one does."""
    resident = as_resident(folder, model=make_model())
    tower, stream = as_streamed(folder, names, model=make_model())
    assert stream.active
    expected = [resident(resident(numbers(n, n + 1))) for n in range(3)]
    results = together(stream, [lambda n=n: tower(tower(numbers(n, n + 1))) for n in range(3)])
    assert all(torch.equal(result, wanted) for result, wanted in zip(results, expected, strict=True))
    return tower


class Sharing(Tower):
    """Blocks that share: one module twice, one weight between two, one within one, one with what stays."""

    def __init__(self) -> None:
        super().__init__((40, 40, 40, WIDTH, WIDTH))
        self.blocks.append(self.blocks[0])
        self.blocks[2].up = self.blocks[1].up
        self.blocks[4].down.weight = self.blocks[3].down.weight = self.blocks[3].up.weight
        self.last.weight = self.blocks[4].up.weight

    def state_dict(self, *arguments: Any, **options: Any) -> Any:
        """What safetensors would write: each weight once."""
        whole = super().state_dict(*arguments, **options)
        seen: set[int] = set()
        return {
            name: weight
            for name, weight in whole.items()
            if not weight.numel() or (weight.data_ptr() not in seen and not seen.add(weight.data_ptr()))
        }

    def load_state_dict(self, state_dict: Any, **options: Any) -> Any:
        report = super().load_state_dict(state_dict, **options)
        with torch.no_grad():
            self.blocks[5] = self.blocks[0]
            self.blocks[2].up = self.blocks[1].up
            self.blocks[4].down.weight = self.blocks[3].down.weight = self.blocks[3].up.weight
            self.last.weight = self.blocks[4].up.weight
        return report


@pytest.mark.parametrize("names", [["blocks"], ["blocks.1", "blocks.3"], ["blocks.2", "blocks.4", "last"]])
def test_shared_weights(tmp_path: Path, names: list[str]) -> None:
    torch.manual_seed(5)
    folder = write(Sharing(), tmp_path / "tower", shards=2)
    check(folder, Sharing, *names)


class Recurrent(Tower):
    """RNNs keep their weights in a list of their own as well."""

    def __init__(self) -> None:
        super().__init__((8, 8))
        self.blocks.insert(1, self.Rnn())
        self.blocks.append(self.Rnn())

    class Rnn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = torch.nn.GRU(WIDTH, WIDTH, num_layers=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.gru(x)[0]
            return result


def test_recurrent_blocks(tmp_path: Path) -> None:
    torch.manual_seed(6)
    check(write(Recurrent(), tmp_path / "tower"), Recurrent, "blocks")


class Lending(Tower):
    """Blocks that return their own weights, or parts of them."""

    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.learned = torch.nn.Parameter(torch.randn(2, WIDTH))
            block.forward = lambda x, block=block: (x * 2, [block.learned, block.learned[:1].expand(3, -1)])

    def forward(self, x: torch.Tensor, path: Any = None) -> torch.Tensor:
        lent: list[torch.Tensor] = []
        for block in self.blocks:
            x, weights = block(x)
            lent += weights
        return torch.cat([x, *lent])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_a_block_returns_outlives_its_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(7)
    folder = write(Lending(), tmp_path / "tower")
    tower, stream = as_streamed(folder, dtype=dtype, model=Lending())
    resident = as_resident(folder, dtype, model=Lending())
    for result in together(stream, [lambda: tower(numbers(1, dtype=dtype))] * 2):
        assert torch.equal(result, resident(numbers(1, dtype=dtype)))


def test_a_weight_is_not_computed_with_where_it_is_not_there(tmp_path: Path) -> None:
    """torch multiplies with an empty weight without a word, and returns what lies in memory."""
    tower, _ = as_streamed(make(tmp_path / "tower"))
    down, up = tower.blocks[0].down, tower.blocks[0].up
    inside = "used outside the call of its own block or layer"
    for use in (
        lambda: down(torch.ones(1, HIDDEN[0])),
        lambda: torch.ones(1, WIDTH) @ up.weight.t(),
        lambda: torch.ones(1, WIDTH) @ up.weight.data.to(torch.float32).t(),
        lambda: torch.cat([torch.ones(1, WIDTH), up.weight]),
        lambda: tower.blocks[0].norm(torch.ones(1, WIDTH)),
        lambda: torch.ones(WIDTH).copy_(tower.blocks[0].norm.weight),
    ):
        with pytest.raises(RuntimeError, match=inside):
            use()
    # to be looked at it is there
    assert down.weight.shape == (WIDTH, HIDDEN[0])
    assert down.weight.dtype == torch.float32
    assert down.weight.numel() * down.weight.element_size() == 4 * WIDTH * HIDDEN[0]
    assert isinstance(down.weight, torch.nn.Parameter)
    assert sum(weight.numel() for weight in tower.parameters()) > 0
    assert "blocks.0.down.weight" in tower.state_dict()
    assert "Layer" in repr(tower)


def test_copies(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder)
    resident = as_resident(folder)
    shallow = copy.copy(tower)
    shallow.more = True
    assert not hasattr(tower, "more")
    tower.blocks = torch.nn.ModuleList(copy.copy(block) for block in tower.blocks)
    for model in (shallow, tower):  # weights and hooks are shared
        assert all(
            torch.equal(result, resident(numbers(1)))
            for result in together(stream, [lambda model=model: model(numbers(1))] * 2)
        )
    deep = copy.deepcopy(shallow)
    shallow(numbers(1), [0])
    with pytest.raises(RuntimeError, match="used outside the call of its own block or layer"):
        deep(numbers(1))
    assert torch.equal(shallow(numbers(1)), resident(numbers(1)))


def test_a_streamed_model_takes_what_a_plain_one_does(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder)
    expected = as_resident(folder)(numbers(1))
    for prepare in (
        tower.train,
        tower.eval,
        lambda: tower.requires_grad_(requires_grad=False),
        lambda: tower.to("cpu"),
        lambda: tower.to(torch.device("cpu"), non_blocking=True),
        tower.cpu,
    ):
        assert prepare() is tower
        assert tower.blocks[1].training == tower.training
        assert torch.equal(together(stream, [lambda: tower(numbers(1))])[0], expected)
    assert not any(weight.requires_grad for weight in tower.parameters())


def test_a_vae_in_a_view_of_its_own(tmp_path: Path) -> None:
    """As runner_flux.decode makes one for each item's tiles."""
    from checkpoints import DEMO
    from component_loading import place

    from runner.placement.loader import ComponentLoader

    worker = ComponentLoader(torch.device("cpu"), torch.float32)
    vaes = [
        place(placement, AutoencoderKL, DEMO / "vae", torch.float32, {"decoder.up_blocks": "disk"}, worker)
        for placement in ("resident", "stream")
    ]

    def decode(vae: Any, n: int) -> torch.Tensor:
        view = copy.copy(vae)
        view.use_tiling, view.tile_sample_min_size, view.tile_latent_min_size = n > 0, 64, 8
        latents = torch.randn(1, 16, 8 + 4 * n, 12, generator=torch.Generator().manual_seed(n))
        decoded: torch.Tensor = view.decode(latents).sample
        return decoded

    results = together(worker.stream, [lambda n=n: decode(vaes[1], n) for n in range(3)])
    assert all(torch.equal(result, decode(vaes[0], n)) for n, result in enumerate(results))
