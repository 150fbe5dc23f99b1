"""A worker's streamed components: one pair of slots and one lockstep for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.stream.blocks import Block, find_blocks
from runner.stream.lockstep import Lockstep
from runner.stream.names import locate
from runner.stream.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from runner.model.files import ComponentFiles


class Stream:
    """Streams blocks to one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[Block] = []
        self._slots: Slots | None = None
        self._lockstep = Lockstep(self._bring)

    @property
    def active(self) -> bool:
        """Whether anything is streamed at all."""
        return bool(self._blocks)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that were read so far."""
        return self._slots.reader.bytes_read if self._slots else 0

    @property
    def waited(self) -> float:
        """Seconds that computing has waited for weights so far."""
        return self._slots.waited if self._slots else 0.0

    def take(
        self,
        module: torch.nn.Module,
        files: ComponentFiles,
        streamed: Callable[[str], bool],
        kept: Callable[[str], bool],
        dtype_of: Callable[[torch.Tensor], torch.dtype],
    ) -> None:
        """Stream those blocks of a freshly opened module that ``streamed`` says of, by their modules' names.

        Their weights are left empty until they run; weights that no file holds as they are stay as they are.
        Beside an accelerator, those that are ``kept`` wait in pinned RAM.
        """
        places = locate(module, files)
        for block in find_blocks(module, streamed):
            for path, owner in block.module.named_modules():
                for name, weight in list(owner.named_parameters(recurse=False)):
                    place = places.get(".".join(filter(None, (block.name, path, name))))
                    if place is not None:
                        block.add(owner, name, weight, place, dtype_of(weight))
            if block.weights:
                block.kept = kept(block.name)
                self._blocks.append(block)
                self._lockstep.watch(block)
        self._slots = None  # made anew when first used: all components are there then

    def run(self, calls: Sequence[Callable[[], object]], stop: Callable[[], BaseException | None]) -> None:
        """Run calls in lockstep, see :meth:`Lockstep.run`."""
        self._lockstep.run(calls, stop)

    def _bring(self, block: Block) -> None:
        if self._slots is None:
            self._slots = Slots(self._blocks, self._device)
        self._slots.bring(block)
