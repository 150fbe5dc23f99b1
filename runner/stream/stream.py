"""The streamed components of a worker, which share one double buffer and one lockstep."""

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
    from runner.stream.weights import WeightSource


class Stream:
    """Streams blocks to one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._blocks: list[Block] = []
        self._reader = Reader()
        self._buffer: DoubleBuffer | None = None
        self._lockstep = Lockstep(self._load)
        self._read = 0
        self._waited = 0.0

    @property
    def active(self) -> bool:
        """Whether anything is streamed at all."""
        return bool(self._blocks)

    @property
    def bytes_read(self) -> int:
        """Bytes of weights read so far, including the block that is prefetched."""
        return self._read + (self._buffer.bytes_read if self._buffer else 0)

    @property
    def waited(self) -> float:
        """Seconds that the computation has waited for weights so far."""
        return self._waited + (self._buffer.waited if self._buffer else 0.0)

    def add(
        self,
        module: torch.nn.Module,
        files: ComponentFiles,
        streamed: Callable[[str], bool],
        in_ram: Callable[[str], bool],
        source_of: Callable[[torch.Tensor], WeightSource],
    ) -> None:
        """Stream the blocks of a newly mapped module whose names ``streamed`` accepts.

        Their weights become placeholders until the block runs; weights that are in no file stay resident.
        With an accelerator, blocks whose names ``in_ram`` accepts are kept in pinned RAM.

        Raises:
            ModelError: a file cannot be opened.

        """
        ranges = locate(module, files)
        weights = dict(module.named_parameters(remove_duplicate=False))
        blocks = find_blocks(module, streamed)
        others = set(parts_outside(module, blocks))
        for block in blocks:
            for path, owner in block.module.named_modules():
                for name, _ in list(owner.named_parameters(recurse=False)):
                    full = ".".join(filter(None, (block.name, path, name)))
                    if full in ranges and owner not in others:
                        source = source_of(weights[full])
                        placeholder = OffloadedParameter.of(weights[full], source.dtype, self._device)
                        block.add(owner, name, source, ranges[full], placeholder)
            if block.weights:
                block.in_ram = in_ram(block.name)
                self._watch(block)
        self.close()  # the blocks that were added may need a larger buffer
        if self._blocks:  # prefetches while the other components are loaded
            self._buffer = DoubleBuffer(self._blocks, self._device, self._reader)

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
        block.module.register_forward_hook(lambda _module, _args, output: self._detach(output))

    def _load(self, block: Block) -> None:
        if self._buffer is not None:
            self._buffer.load(block)

    def _detach(self, output: object) -> object:
        return output if self._buffer is None else self._buffer.detach(output)

    def close(self) -> None:
        """Leave all blocks without weights, and wait until nothing is being read or copied."""
        if self._buffer is not None:
            self._buffer.close()
            self._read, self._waited, self._buffer = self.bytes_read, self.waited, None
