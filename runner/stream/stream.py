"""A worker's streamed components: one pair of slots and one lockstep for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.stream.blocks import Block, OffloadedParameter, find_blocks, parts_outside
from runner.stream.double_buffer import DoubleBuffer
from runner.stream.lockstep import Lockstep, nothing
from runner.stream.names import locate
from runner.stream.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from runner.model.files import ComponentFiles
    from runner.stream.lockstep import During


class Stream:
    """Streams blocks to one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[Block] = []
        self._reader = Reader()
        self._slots: DoubleBuffer | None = None
        self._lockstep = Lockstep(self._load)
        self._read = 0
        self._waited = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is streamed at all."""
        return bool(self._blocks)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that were read so far, one block ahead of what computes."""
        return self._read + (self._slots.bytes_read if self._slots else 0)

    @property
    def waited(self) -> float:
        """Seconds that computing has waited for weights so far."""
        return self._waited + (self._slots.waited if self._slots else 0.0)

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

        Raises:
            ModelError: a file cannot be opened.

        """
        places = locate(module, files)
        weights = dict(module.named_parameters(remove_duplicate=False))
        blocks = find_blocks(module, streamed)
        others = set(parts_outside(module, blocks))
        for block in blocks:
            for path, owner in block.module.named_modules():
                for name, _ in list(owner.named_parameters(recurse=False)):
                    full = ".".join(filter(None, (block.name, path, name)))
                    if full in places and owner not in others:
                        absent = OffloadedParameter.of(weights[full], dtype_of(weights[full]), self._device)
                        block.add(owner, name, weights[full], places[full], absent)
            if block.weights:
                block.kept = kept(block.name)
                self._watch(block)
        self._put_away()
        if self._blocks:  # what comes first is read while the other components are loaded
            self._slots = DoubleBuffer(self._blocks, self._device, self._reader)

    def run(
        self,
        calls: Sequence[Callable[[], object]],
        stop: Callable[[], BaseException | None],
        during: During = nothing,
    ) -> None:
        """Run calls in lockstep, see :meth:`Lockstep.run`."""
        self._lockstep.run(calls, stop, during)

    def _watch(self, block: Block) -> None:
        self._blocks.append(block)
        self._lockstep.watch(block)
        block.module.register_forward_hook(lambda _module, _args, output: self._lend(output))

    def _load(self, block: Block) -> None:
        if self._slots is not None:
            self._slots.load(block)

    def _lend(self, output: object) -> object:
        return output if self._slots is None else self._slots.detach(output)

    def _put_away(self) -> None:
        """Let the slots go: a component that has joined may have larger blocks."""
        if self._slots is not None:
            self._slots.close()
            self._read, self._waited, self._slots = self.bytes_read, self.waited, None
