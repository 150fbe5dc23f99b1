"""Streamed blocks: their parameters, and the layout of these in a buffer slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.stream.file_range import FileRange
    from runner.stream.weights import WeightSource

ALIGNMENT = 256
"""Bytes. The CPU needs 64; cuBLAS chooses kernels by alignments up to 256."""


_MOVES = (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda)
_WHEREABOUTS = tuple(
    getattr(torch.Tensor, name).__get__ for name in ("device", "is_cpu", "is_cuda", "is_meta")
)


class OffloadedParameter(torch.nn.Parameter):
    """Placeholder of a weight that is not in memory: it has shape, dtype and device, and refuses to compute.

    A plain "meta" parameter does not refuse: torch multiplies CPU tensors with it and returns garbage.
    """

    target: torch.Tensor
    """An empty tensor on the device that the weight is loaded to."""

    @classmethod
    def of(cls, weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> Self:
        """A placeholder for a weight that is loaded to ``device`` in ``dtype``."""
        offloaded = cls(torch.empty(weight.shape, dtype=dtype, device="meta"), requires_grad=False)
        offloaded.target = torch.empty(0, dtype=dtype, device=device)
        return offloaded

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WHEREABOUTS and hasattr(args[0], "target"):
            return func(args[0].target)  # libraries move inputs to the device of the first weight
        if cls._stays(func, args, kwargs):
            return args[0]
        given = pytree.tree_leaves((args, kwargs))
        if any(isinstance(value, torch.Tensor) and type(value) is not cls for value in given):
            raise RuntimeError(
                "an offloaded weight was used outside the call of its own block or layer, where it is not in "
                "memory; placement resident keeps all weights in memory"
            )
        # Tensor's method, not Parameter's: results are placeholders, too
        plain: Any = super(torch.nn.Parameter, cls)
        return plain.__torch_function__(func, types, args, kwargs or {})

    @staticmethod
    def _stays(func: Any, args: Any, kwargs: Any) -> bool:
        """Whether ``func`` only moves it to a device, which has no effect: its device is fixed."""
        others = pytree.tree_leaves((args[1:], kwargs))
        return func in _MOVES and not any(isinstance(o, torch.dtype | torch.Tensor) for o in others)


@dataclass(frozen=True)
class Part:
    """A tensor of a block: its range in a file, its offset in a slot."""

    range: FileRange
    offset: int
    """Bytes from the start of the slot."""

    def view(self, slot: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The tensor in a slot (uint8) that holds the block, with the shape and dtype of ``like``."""
        raw = slot[self.offset : self.offset + self.range.size]
        return raw.view(like.dtype).view(like.shape)


@dataclass(frozen=True)
class Weight:
    """One parameter of a block: its owner, the tensors that it consists of, and what they become."""

    owner: torch.nn.Module
    name: str
    source: WeightSource
    parts: tuple[Part, ...]
    """Of each tensor of the source."""
    placeholder: OffloadedParameter
    """Its substitute in the module while it is not loaded."""


@dataclass(eq=False)
class Block:
    """A module whose weights are loaded and released together."""

    name: str
    module: torch.nn.Module
    in_ram: bool = False
    """Whether a copy is kept in pinned RAM, with an accelerator, so that it is read from disk once."""
    weights: list[Weight] = field(default_factory=list)
    parts: dict[FileRange, Part] = field(default_factory=dict)
    """All tensors; those of weights that are tied inside the block count once."""
    size: int = 0
    """Bytes in a slot, as stored."""
    cast_size: int = 0
    """Bytes of the weights that are cast, after the cast."""

    @property
    def stored(self) -> int:
        """Bytes in the files."""
        return sum(range_.size for range_ in self.parts)

    def add(
        self,
        owner: torch.nn.Module,
        name: str,
        source: WeightSource,
        ranges: Sequence[FileRange],
        placeholder: OffloadedParameter,
    ) -> None:
        """Add a parameter, whose tensors have these ranges, and put ``placeholder`` in its place."""
        parts = tuple(map(self._part, ranges))
        self.weights.append(Weight(owner, name, source, parts, placeholder))
        self.cast_size = aligned(self.cast_size + source.cast_size)
        set_weight(owner, name, placeholder)

    def _part(self, range_: FileRange) -> Part:
        if range_ not in self.parts:
            self.parts[range_] = Part(range_, self.size)
            self.size = aligned(self.size + range_.size)
        return self.parts[range_]

    def bind(self, slot: torch.Tensor, cast: torch.Tensor) -> None:
        """Make the parameters views of ``slot`` (uint8); those to be cast are cast into ``cast`` (uint8)."""
        at = 0
        for weight in self.weights:
            views = map(Part.view, weight.parts, repeat(slot), weight.source.tensors)
            value = weight.source.materialize([*views], cast[at:])
            at += aligned(weight.source.cast_size)
            set_weight(weight.owner, weight.name, as_parameter(value))

    def release(self) -> None:
        """Replace the parameters by their placeholders."""
        for weight in self.weights:
            set_weight(weight.owner, weight.name, weight.placeholder)


def find_blocks(module: torch.nn.Module, streamed: Callable[[str], bool]) -> list[Block]:
    """The submodules whose names ``streamed`` accepts, in the module's order.

    A list of modules is replaced by its members. Blocks are not nested: the outermost counts.
    """
    found: dict[torch.nn.Module, Block] = {}
    for block in _blocks_in(module, "", streamed, in_list=False):
        found.setdefault(block.module, block)  # a module may have several names
    inside = {part for outer in found for part in outer.modules() if part is not outer}
    return [block for part, block in found.items() if part not in inside]


def _blocks_in(
    module: torch.nn.Module, prefix: str, streamed: Callable[[str], bool], *, in_list: bool
) -> Iterator[Block]:
    for child, part in module.named_children():
        name = prefix + child
        chosen = in_list or streamed(name)
        if chosen and not _is_list(part):
            yield Block(name, part)
        else:
            yield from _blocks_in(part, f"{name}.", streamed, in_list=chosen)


def parts_outside(module: torch.nn.Module, blocks: Sequence[Block]) -> Iterator[torch.nn.Module]:
    """The module and its submodules that are not inside a block."""
    seen = {block.module for block in blocks}
    following = [module]
    while following:
        part = following.pop()
        if part not in seen:
            seen.add(part)
            following.extend(part.children())
            yield part


def _is_list(module: torch.nn.Module) -> bool:
    """Whether it has no forward of its own, so that a hook on it may never be called."""
    unimplemented = type(module).forward is torch.nn.Module.forward
    return unimplemented or isinstance(module, torch.nn.Sequential)


def as_parameter(value: torch.Tensor) -> torch.nn.Parameter:
    """A tensor as a parameter; some quantised weights are parameters of a kind of their own."""
    if isinstance(value, torch.nn.Parameter):
        return value
    return torch.nn.Parameter(value, requires_grad=False)


def set_weight(owner: torch.nn.Module, name: str, value: torch.Tensor) -> None:
    """Set the module's parameter or buffer of that name."""
    # Module.__setattr__ takes longer than small blocks compute; a class that overrides it (RNNs) needs it
    if type(owner).__setattr__ is torch.nn.Module.__setattr__:
        table: Any = owner._buffers if name in owner._buffers else owner._parameters  # noqa: SLF001
        table[name] = value
    else:
        setattr(owner, name, value)


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
