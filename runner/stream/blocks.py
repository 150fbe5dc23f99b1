"""Blocks whose weights are streamed: which parameters they have, and how these lie in a slot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runner.stream.names import FileRange

ALIGNMENT = 256
"""Bytes. 64 would do on the CPU; cuBLAS chooses its kernels by alignments up to 256."""


_MOVES = (torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda)
_WHEREABOUTS = tuple(
    getattr(torch.Tensor, name).__get__ for name in ("device", "is_cpu", "is_cuda", "is_meta")
)


class OffloadedParameter(torch.nn.Parameter):
    """A weight that is not there now: it has a shape, a dtype and a device, and refuses to be computed with.

    torch itself multiplies numbers on the CPU with a weight on "meta", and returns what happened to lie in
    memory.
    """

    there: torch.Tensor
    """An empty tensor on the device that the weight comes to."""

    @classmethod
    def of(cls, weight: torch.Tensor, dtype: torch.dtype, device: torch.device) -> Self:
        """One in the place of a weight that comes to the device in that dtype."""
        absent = cls(torch.empty(weight.shape, dtype=dtype, device="meta"), requires_grad=False)
        absent.there = torch.empty(0, dtype=dtype, device=device)
        return absent

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _WHEREABOUTS and hasattr(args[0], "there"):
            return func(args[0].there)  # code puts its inputs where the model's first weight is
        if cls._stays(func, args, kwargs):
            return args[0]
        given = pytree.tree_leaves((args, kwargs))
        if any(isinstance(value, torch.Tensor) and type(value) is not cls for value in given):
            raise RuntimeError(
                "a weight that comes and goes was used outside of its own block's or layer's call, where it "
                "is not in memory; placement resident keeps all of them there"
            )
        # as Tensor does, not Parameter: what is made of it is absent, too
        plain: Any = super(torch.nn.Parameter, cls)
        return plain.__torch_function__(func, types, args, kwargs or {})

    @staticmethod
    def _stays(func: Any, args: Any, kwargs: Any) -> bool:
        """Whether it is told to go to a device, and no more: it comes to its own anyway."""
        others = pytree.tree_leaves((args[1:], kwargs))
        return func in _MOVES and not any(isinstance(o, torch.dtype | torch.Tensor) for o in others)


@dataclass(frozen=True)
class Weight:
    """One parameter of a block: who has it, where it is stored, where it goes in a slot."""

    owner: torch.nn.Module
    name: str
    place: FileRange
    shape: torch.Size
    stored: torch.dtype
    dtype: torch.dtype
    """What it computes in."""
    offset: int
    """Bytes from the start of the slot."""
    absent: OffloadedParameter
    """What stands in for it while it is not there."""


@dataclass(eq=False)
class Block:
    """A module whose weights come and go together."""

    name: str
    module: torch.nn.Module
    kept: bool = False
    """Whether it waits in pinned RAM, beside an accelerator, rather than on disk."""
    weights: list[Weight] = field(default_factory=list)
    stored: int = 0
    """Bytes in the files."""
    size: int = 0
    """Bytes in a slot, as stored."""
    cast_size: int = 0
    """Bytes of those weights that are cast, in the dtype that they compute in."""

    def add(
        self,
        owner: torch.nn.Module,
        name: str,
        weight: torch.Tensor,
        place: FileRange,
        absent: OffloadedParameter,
    ) -> None:
        """Take a parameter in, and leave ``absent`` where it was."""
        same = [other for other in self.weights if other.place == place]  # tied inside the block
        dtype = absent.dtype
        offset = same[0].offset if same else self.size
        added = Weight(owner, name, place, weight.shape, weight.dtype, dtype, offset, absent)
        self.weights.append(added)
        if not same:
            self.stored += place.size
            self.size = _aligned(self.size + place.size)
        if dtype != weight.dtype:
            self.cast_size = _aligned(self.cast_size + weight.numel() * dtype.itemsize)
        set_weight(owner, name, absent)

    def bind(self, slot: torch.Tensor, cast: torch.Tensor) -> None:
        """Let the parameters be what lies in the slot (bytes); what must be cast is cast into ``cast``."""
        at = 0
        for weight in self.weights:
            raw = slot[weight.offset : weight.offset + weight.place.size]
            value = raw.view(weight.stored).view(weight.shape)
            if weight.dtype != weight.stored:
                size = value.numel() * weight.dtype.itemsize
                target = cast[at : at + size].view(weight.dtype).view(weight.shape)
                value = target.copy_(value)
                at = _aligned(at + size)
            set_weight(weight.owner, weight.name, torch.nn.Parameter(value, requires_grad=False))

    def release(self) -> None:
        """Leave the parameters empty again, with their shapes and dtypes."""
        for weight in self.weights:
            set_weight(weight.owner, weight.name, weight.absent)


def find_blocks(module: torch.nn.Module, streamed: Callable[[str], bool]) -> list[Block]:
    """The modules that ``streamed`` says of, by their names, in the module's own order.

    Of what is no more than a list of modules it takes the members; inside a block there are no further ones.
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
    """The module and its parts as far as they can be reached without passing through a block."""
    seen = {block.module for block in blocks}
    following = [module]
    while following:
        part = following.pop()
        if part not in seen:
            seen.add(part)
            following.extend(part.children())
            yield part


def _is_list(module: torch.nn.Module) -> bool:
    """Whether it has nothing of its own to run, so that no hook on it would ever be called."""
    unimplemented = type(module).forward is torch.nn.Module.forward
    return unimplemented or isinstance(module, torch.nn.Sequential)


def set_weight(owner: torch.nn.Module, name: str, value: torch.nn.Parameter) -> None:
    """Have ``value`` be the module's parameter, or its buffer, of that name."""
    # straight into the table: going through __setattr__ would cost more than small blocks compute; but a
    # class with one of its own (RNNs) keeps account of its weights there
    if type(owner).__setattr__ is torch.nn.Module.__setattr__:
        table = owner._buffers if name in owner._buffers else owner._parameters  # noqa: SLF001
        table[name] = value
    else:
        setattr(owner, name, value)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
