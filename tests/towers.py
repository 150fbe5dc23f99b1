"""A small model of blocks of different sizes, with its files, resident and streamed.

Its calls choose their own way through the blocks.
"""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from plain_tower import HIDDEN, WIDTH, Layer, Tower, numbers
from safetensors.torch import load_file, save_file

from runner.api import Component
from runner.model.files import open_component
from runner.placement.library import MappedModule
from runner.stream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "HIDDEN",
    "WIDTH",
    "Layer",
    "Tower",
    "as_resident",
    "as_streamed",
    "empty",
    "make",
    "mapped_model",
    "named",
    "numbers",
    "stored_bytes",
    "together",
    "write",
]

CPU = torch.device("cpu")


def write(
    model: torch.nn.Module, folder: Path, dtype: torch.dtype = torch.float32, shards: int = 1, pad: int = 0
) -> Path:
    """Write a module's weights, neighbours to different shards; ``pad`` lengthens the headers."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().to(dtype).clone() for name, weight in model.state_dict().items()}
    for shard in range(shards):
        part = dict(list(weights.items())[shard::shards])
        save_file(part, folder / f"model-{shard}.safetensors", {"pad": "x" * pad})
    return folder


def make(folder: Path, hidden: Sequence[int] = HIDDEN, **how: Any) -> Path:
    """A folder with a random tower."""
    torch.manual_seed(len(hidden))
    return write(Tower(hidden), folder, **how)


def mapped_model(model: torch.nn.Module, folder: Path, dtype: torch.dtype) -> MappedModule:
    """The model with its weights mapped from the files."""
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    model.load_state_dict(weights, assign=True, strict=False)
    model.requires_grad_(requires_grad=False).eval()
    return MappedModule(model, dict.fromkeys(model.parameters(), dtype))


def empty(hidden: Sequence[int] = HIDDEN) -> Tower:
    with torch.device("meta"):
        return Tower(hidden)


def as_resident(
    folder: Path, dtype: torch.dtype = torch.float32, model: torch.nn.Module | None = None
) -> Any:
    return mapped_model(model or empty(_hidden(folder)), folder, dtype).materialize(CPU)


def as_streamed(
    folder: Path,
    names: Iterable[str] = ("blocks",),
    dtype: torch.dtype = torch.float32,
    stream: Stream | None = None,
    model: torch.nn.Module | None = None,
    device: torch.device = CPU,
    in_ram: Callable[[str], bool] = lambda _block: False,
) -> tuple[Any, Stream]:
    """The model with those blocks or lists streamed, and its stream; ``in_ram`` says which wait there."""
    stream = stream or Stream(device)
    files = open_component(folder.parent, Component(folder.name, "towers:Tower"))
    mapped = mapped_model(model or empty(_hidden(folder)), folder, dtype)
    stream.add(mapped.module, files, named(*names), in_ram, mapped.source_of)
    return mapped.materialize(device), stream


def named(*names: str) -> Callable[[str], bool]:
    """Whether a module has one of the names, or is in the list of that name."""
    return lambda module: bool({module, module.rpartition(".")[0]} & {*names})


def together(
    stream: Stream,
    calls: Sequence[Callable[[], Any]],
    stop: Callable[[], BaseException | None] = lambda: None,
) -> list[Any]:
    """What the calls return, run in lockstep."""
    results: dict[int, Any] = {}

    def run(at: int, call: Callable[[], Any]) -> None:
        results[at] = call()

    stream.run([lambda at=at, call=call: run(at, call) for at, call in enumerate(calls)], stop)
    return [results[at] for at in range(len(calls))]


def stored_bytes(folder: Path, names: Mapping[str, Any] | Sequence[str] = ("blocks",)) -> int:
    """Bytes of the weights whose names start so."""
    return sum(
        weight.nbytes
        for file in folder.glob("*.safetensors")
        for name, weight in load_file(file).items()
        if any(name.startswith(f"{start}.") for start in names)
    )


def _hidden(folder: Path) -> list[int]:
    sizes: dict[int, int] = {}
    for file in folder.glob("*.safetensors"):
        for name, weight in load_file(file).items():
            if name.endswith("up.weight"):
                sizes[int(name.split(".")[1])] = weight.shape[0]
    return [sizes[at] for at in range(len(sizes))]
