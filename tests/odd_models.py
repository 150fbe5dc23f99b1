"""Small models of unusual make, each with a checkpoint, placed on a simulated device as a worker places them."""

# mypy: disable-error-code="misc,no-any-return,attr-defined,union-attr,untyped-decorator"

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import save_file
from torch.nn.utils.parametrizations import weight_norm
from towers import together

from runner.api import Component
from runner.model.files import open_component
from runner.placement.loader import ComponentLoader
from runner.placements import ComponentPlacement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.stream.stream import Stream

WIDTH = 24


class Block(torch.nn.Module):
    """Weights of odd sizes, none, and one number; buffers that are stored, computed, integer."""

    def __init__(self, hidden: int = 7) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.up = torch.nn.Linear(WIDTH, hidden)
        self.down = torch.nn.Linear(hidden, WIDTH, bias=False)
        self.scale = torch.nn.Parameter(torch.tensor(0.7))
        self.nothing = torch.nn.Parameter(torch.empty(0, WIDTH))
        self.batch = torch.nn.BatchNorm1d(WIDTH)
        self.register_buffer("rotary", torch.rand(WIDTH))
        self.register_buffer("computed", torch.arange(WIDTH) / WIDTH, persistent=False)
        self.register_buffer("order", torch.randperm(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(torch.nn.functional.gelu(self.up(self.norm(x)))) * self.scale
        y = self.batch(y * self.rotary + self.computed.to(y.dtype))[:, self.order]
        return x + y + self.nothing.sum()


class Lists(torch.nn.Module):
    """Two lists of different blocks; one block runs twice in a row, one again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(WIDTH, WIDTH)
        self.blocks = torch.nn.ModuleList(Block(size) for size in (5, 40, 8))
        self.single = torch.nn.ModuleList(torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.last = torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for block in (*self.blocks, self.blocks[2], *self.single, self.blocks[0]):
            x = block(x)
        return self.last(x)


class CountingBlock(torch.nn.Module):
    calls: torch.Tensor
    sums: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, WIDTH)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("sums", torch.zeros(WIDTH), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.sums = self.sums + x.sum(0)
        return self.linear(x) + self.calls + self.sums


class Counting(torch.nn.Module):
    """Blocks that write to their buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(CountingBlock() for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x).tanh()
        return x


class TiedBlock(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.b = torch.nn.Linear(WIDTH, WIDTH)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.b(self.a(x))


class Tied(torch.nn.Module):
    """Weights that are tied inside a block, across blocks, and to what is outside; a part that two blocks share."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.blocks = torch.nn.ModuleList(TiedBlock() for _ in range(4))
        self.blocks[2].a = self.blocks[0].a
        self.blocks[3].b.bias = self.blocks[1].b.bias
        self.head = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class LendingBlock(torch.nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(WIDTH, size)
        self.back = torch.nn.Linear(size, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        out = x + self.back(self.linear(x))
        return {"x": out, "views": [self.linear.weight[1:3], (self.back.weight.T[:1],)], "none": None}


class Lending(torch.nn.Module):
    """Blocks that return views of their weights, inside dicts and lists."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(LendingBlock(size) for size in (9, 30, 12, 9))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lent = []
        for block in self.blocks:
            found = block(x)
            x = found["x"]
            lent += [found["views"][0].sum(0), found["views"][1][0][0]]
        return x * torch.stack(lent).sum(0)


class Large(torch.nn.Module):
    """One layer that is larger than a read of the files, among small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(LendingBlock(size) for size in (3, 180_001, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)["x"]
        return x


class Normed(torch.nn.Module):
    """Weights that are computed from others when they are used."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(weight_norm(torch.nn.Linear(WIDTH, WIDTH)) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


class Kept(ModelMixin, ConfigMixin):
    """Of diffusers, whose norms stay in float32."""

    _keep_in_fp32_modules = ("norm",)

    @register_to_config
    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(KeptBlock(width) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class KeptBlock(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.linear = torch.nn.Linear(width, 2 * width - 1)
        self.back = torch.nn.Linear(2 * width - 1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.back(self.linear(self.norm(x.to(self.norm.weight.dtype)).to(x.dtype)))


MODELS = {cls.__name__: cls for cls in (Lists, Counting, Tied, Lending, Large, Normed, Kept)}
PLACED = {
    "resident": ComponentPlacement("resident"),
    "stream disk": ComponentPlacement("stream", {"": "disk"}),
    "stream cpu": ComponentPlacement("stream", {"": "cpu"}),
    "stream blocks": ComponentPlacement(
        "stream", {"blocks.0": "cpu", "blocks.1": "disk", "blocks.2": "disk"}
    ),
    "device-map disk": ComponentPlacement("device-map", {"": "disk"}),
    "device-map mixed": ComponentPlacement("device-map", {"blocks.0": "disk", "blocks.1": "cpu"}),
    "sequential-offload": ComponentPlacement("sequential-offload", {"": "cpu"}),
    "model-offload": ComponentPlacement("model-offload"),
    "group-offload": ComponentPlacement("group-offload"),
}


class Checkpoint(NamedTuple):
    """A model, the dtypes of its file, and the one that it computes in."""

    model: str
    stored: torch.dtype
    dtype: torch.dtype
    norms: torch.dtype | None = None
    """The dtype in the file of those whose names have ``norm`` in them, if another."""


def make(folder: Path, checkpoint: Checkpoint) -> Path:
    torch.manual_seed(3)
    model = MODELS[checkpoint.model]()
    folder.mkdir(parents=True)
    weights = {}
    for name, weight in model.state_dict().items():
        stored = checkpoint.norms if checkpoint.norms and "norm" in name else checkpoint.stored
        weights[name] = (weight.to(stored) if weight.is_floating_point() else weight).clone()
    if isinstance(model, Kept):
        model.save_config(folder)
        save_file(weights, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    else:
        save_file(weights, folder / "model.safetensors", {"pad": "xxx"})
    return folder


def compare(
    folder: str, checkpoint: Checkpoint, names: Sequence[str], policies: Sequence[str]
) -> Mapping[str, str]:
    """What is wrong with each placement of a model on the device: nothing, where it has the CPU's bits."""
    expected = _run(folder, checkpoint, "cpu", ComponentPlacement("resident"))
    return {name: _wrong(folder, checkpoint, name, policies, expected) for name in names}


def _wrong(
    folder: str, checkpoint: Checkpoint, name: str, policies: Sequence[str], expected: list[torch.Tensor]
) -> str:
    import torch_sim

    for policy in policies:
        torch_sim.set_policy(policy, 0)
        try:
            results = _run(folder, checkpoint, "sim:0", PLACED[name])
            torch.accelerator.synchronize()
            right = all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))
            wrong = [] if right else ["other bits"]
        except Exception as error:
            wrong = [f"{type(error).__name__}: {error}"]
        wrong += torch_sim.take_violations()
        if wrong:
            return "; ".join(wrong)
    return ""


def _run(
    folder: str, checkpoint: Checkpoint, device: str, placement: ComponentPlacement
) -> list[torch.Tensor]:
    path, cls = Path(folder), MODELS[checkpoint.model]
    files = open_component(path.parent, Component(path.name, f"odd_models:{cls.__name__}"))
    loader = ComponentLoader(torch.device(device), checkpoint.dtype)
    module = loader.load(cls, files, placement)
    calls = [partial(_call, module, n, device, checkpoint.dtype) for n in range(3)]
    stream: Stream = loader.stream
    found = together(stream, calls) if stream.active else [call() for call in calls]
    stream.close()
    return found


def _call(module: Any, number: int, device: str, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(2 + number, WIDTH, generator=torch.Generator().manual_seed(number)).to(device, dtype)
    for _ in range(2):
        x = module(x) / 2
    return x.cpu()
