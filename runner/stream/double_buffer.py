"""Two buffers of the largest block's size: one is computed with while the other is filled."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch.utils import _pytree as pytree

from runner.accelerator.backends import backend_of
from runner.machine.active_time import active_seconds
from runner.stream.transfer import transfers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.stream.blocks import Block
    from runner.stream.reader import Reader
    from runner.stream.transfer import Transfer


class _Slot:
    """One buffer, and the block that it holds or is being filled with."""

    def __init__(self, transfer: Transfer) -> None:
        self.transfer = transfer
        self.block: Block | None = None
        self.filling: Future[None] | None = None


class DoubleBuffer:
    """Loads blocks, and prefetches the one that followed last time; at first, the next in ``blocks``."""

    def __init__(self, blocks: Sequence[Block], device: torch.device, reader: Reader) -> None:
        self._next = dict(zip(blocks, [*blocks[1:], blocks[0]], strict=True))
        self._bound: Block | None = None
        self._backend = backend_of(device)
        self._filler = ThreadPoolExecutor(1, "slots", initializer=self._backend.make_current)
        size = max(block.size for block in blocks)
        # not inference tensors: other threads and code outside of inference mode could not write to those
        with torch.inference_mode(mode=False):
            self._cast = torch.empty(max(b.cast_size for b in blocks), dtype=torch.uint8, device=device)
            self._transfers = transfers(size, self._backend, reader)
        self._slots = [_Slot(transfer) for transfer in self._transfers.each]
        self.bytes_read = 0
        """Bytes of weights that were read or are being prefetched."""
        self._waited = 0.0
        for slot, block in zip(self._slots, blocks, strict=False):
            self._fill(slot, block)

    @property
    def waited(self) -> float:
        """Seconds that the computation has waited for weights, as far as is known yet."""
        self._waited += sum(slot.transfer.seconds_stalled() for slot in self._slots)
        return self._waited

    def load(self, block: Block) -> None:
        """Wait for the block's weights and bind them; release the previous block, prefetch the next.

        Raises:
            ModelError: its file was changed or cut, or cannot be read.

        """
        if self._bound is block:
            return
        slot, other = self._slots
        if self._bound is not None:  # it is in the first slot, and has been computed
            self._next[self._bound] = block
            self._release()
            slot.transfer.computed()
            slot, other = other, slot
        if slot.block is not block:
            self._fill(slot, block)  # the prefetch was another block
        start = active_seconds()
        self._finish(slot)
        self._waited += active_seconds() - start
        slot.transfer.await_arrival()
        with torch.no_grad():
            block.bind(slot.transfer.memory, self._cast)
        self._bound, self._slots = block, [slot, other]
        guess = self._next[block]
        if guess is not block and other.block is not guess:
            self._fill(other, guess)

    def detach(self, output: object) -> object:
        """A block's output, cloned where it aliases a buffer, which the next block overwrites."""
        if isinstance(output, torch.Tensor):
            return output.clone() if self._is_in_buffer(output) else output
        if any(
            isinstance(leaf, torch.Tensor) and self._is_in_buffer(leaf) for leaf in pytree.tree_leaves(output)
        ):
            return pytree.tree_map(self.detach, output)
        return output

    def _is_in_buffer(self, tensor: torch.Tensor) -> bool:
        buffers = (*(slot.transfer.memory for slot in self._slots), self._cast)
        return tensor.untyped_storage().data_ptr() in [t.data_ptr() for t in buffers if t.numel()]

    def close(self) -> None:
        """Release the bound block and wait for reads and copies to end."""
        self._release()
        self._filler.shutdown()
        self._backend.synchronize()  # the copies have ended: host memory may be freed

    def _release(self) -> None:
        if self._bound is not None:
            self._bound.release()
            self._bound = None

    def _fill(self, slot: _Slot, block: Block) -> None:
        if block not in self._transfers.pinned:
            self.bytes_read += block.stored
        slot.block = block
        slot.filling = self._filler.submit(slot.transfer.fill, block)

    def _finish(self, slot: _Slot) -> None:
        filling, slot.filling = slot.filling, None
        if filling is not None:
            try:
                filling.result()
            except BaseException:
                slot.block = None
                raise
