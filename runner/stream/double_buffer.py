"""Two buffers of the largest block's size: one is computed with while the other is filled."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch
from torch.utils import _pytree as pytree

from runner.machine.active_time import active_seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.stream.blocks import Block
    from runner.stream.reader import Reader


class _Slot:
    """One buffer, and the block that it holds or is being filled with."""

    def __init__(self, size: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self.host = pinned(size) if on_cuda else torch.empty(size, dtype=torch.uint8)
        self.device = torch.empty(size, dtype=torch.uint8, device=device) if on_cuda else self.host
        self.copied: torch.cuda.Event | None = _event() if on_cuda else None
        self.released: torch.cuda.Event | None = _event() if on_cuda else None
        self.block: Block | None = None
        self.filling: Future[None] | None = None


class DoubleBuffer:
    """Loads blocks and prefetches the next: the one that followed last time, at first in the order given."""

    def __init__(self, blocks: Sequence[Block], device: torch.device, reader: Reader) -> None:
        self._device = device
        self._reader = reader
        self._next = dict(zip(blocks, [*blocks[1:], blocks[0]], strict=True))
        self._bound: Block | None = None
        self._pinned: dict[Block, torch.Tensor] = {}
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="slots")
        size = max(block.size for block in blocks)
        # not inference tensors: other threads and code outside of inference mode could not write to those
        with torch.inference_mode(mode=False):
            self._cast = torch.empty(max(b.cast_size for b in blocks), dtype=torch.uint8, device=device)
            self._slots = [_Slot(size, device), _Slot(size, device)]
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.bytes_read = 0
        """Bytes of weights that were read or are being prefetched."""
        self.waited = 0.0
        """Seconds that the computation has waited for weights."""
        for slot, block in zip(self._slots, blocks, strict=False):
            self._fill(slot, block)

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
            if slot.released is not None:
                slot.released.record(torch.cuda.current_stream(self._device))
            slot, other = other, slot
        if slot.block is not block:
            self._fill(slot, block)  # the prefetch was another block
        start = active_seconds()
        self._finish(slot)
        self.waited += active_seconds() - start
        if slot.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.copied)
        with torch.no_grad():
            block.bind(slot.device, self._cast)
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
        buffers = (self._slots[0].device, self._slots[1].device, self._cast)
        return tensor.untyped_storage().data_ptr() in [t.data_ptr() for t in buffers if t.numel()]

    def close(self) -> None:
        """Release the bound block and wait for reads and copies to end."""
        self._release()
        self._filler.shutdown()
        if self._stream is not None:
            torch.cuda.synchronize(self._device)  # the copies have ended: host memory may be freed

    def _release(self) -> None:
        if self._bound is not None:
            self._bound.release()
            self._bound = None

    def _fill(self, slot: _Slot, block: Block) -> None:
        if slot.filling is not None:
            slot.filling.exception()  # waits; its error does not matter, as the block is not used
        if block not in self._pinned:
            self.bytes_read += block.stored
        slot.block = block
        slot.filling = self._filler.submit(self._fetch, slot, block)

    def _finish(self, slot: _Slot) -> None:
        filling, slot.filling = slot.filling, None
        if filling is not None:
            try:
                filling.result()
            except BaseException:
                slot.block = None
                raise

    def _fetch(self, slot: _Slot, block: Block) -> None:
        """Read a block to host memory and copy it to the device. Runs in the filler's thread."""
        if slot.copied is None or slot.released is None or self._stream is None:
            self._reader.read(block, slot.host.data_ptr())
            return
        source = self._pinned_copy(block)
        if source is None:
            slot.copied.synchronize()  # until the previous copy has left host memory
            self._reader.read(block, slot.host.data_ptr())
            source = slot.host
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.released)
            slot.device[: block.size].copy_(source[: block.size], non_blocking=True)
            slot.copied.record(self._stream)

    def _pinned_copy(self, block: Block) -> torch.Tensor | None:
        """The pinned memory of a block that is kept in RAM, read at first use; None for others."""
        if block.in_ram and block not in self._pinned:
            memory = pinned(block.size)
            self._reader.read(block, memory.data_ptr())
            self._pinned[block] = memory
        return self._pinned.get(block)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def pinned(size: int) -> torch.Tensor:
    """Pinned host memory of exactly ``size`` bytes: torch's own allocator rounds up.

    Raises:
        MemoryError: the system refuses to pin that many.

    """
    memory = torch.empty(size, dtype=torch.uint8)
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    failed = cudart.cudaHostRegister(memory.data_ptr(), size, 0)
    if int(failed):
        raise MemoryError(f"{size} bytes of RAM cannot be pinned for the device (CUDA error {int(failed)})")
    # memory that is freed while it is pinned cannot be pinned again
    weakref.finalize(memory, cudart.cudaHostUnregister, memory.data_ptr()).atexit = False
    return memory
