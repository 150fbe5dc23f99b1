"""Two slots of the largest block's size: one computes while the other is filled."""

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
    """Memory for one block, and the block that it holds or is being filled with."""

    def __init__(self, size: int, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self.host = pinned(size) if on_cuda else torch.empty(size, dtype=torch.uint8)
        self.device = torch.empty(size, dtype=torch.uint8, device=device) if on_cuda else self.host
        self.arrived: torch.cuda.Event | None = _event() if on_cuda else None
        self.left: torch.cuda.Event | None = _event() if on_cuda else None
        self.block: Block | None = None
        self.filling: Future[None] | None = None


class DoubleBuffer:
    """Brings blocks, and guesses which one comes next: the one that came next the last time.

    At first it is the first two.
    """

    def __init__(self, blocks: Sequence[Block], device: torch.device, reader: Reader) -> None:
        self._device = device
        self._reader = reader
        self._next = dict(zip(blocks, [*blocks[1:], blocks[0]], strict=True))
        self._bound: Block | None = None
        self._held: dict[Block, torch.Tensor] = {}
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="slots")
        size = max(block.size for block in blocks)
        # no inference tensors: other threads, and code outside of inference mode, may not write to these
        with torch.inference_mode(mode=False):
            self._cast = torch.empty(max(b.cast_size for b in blocks), dtype=torch.uint8, device=device)
            self._slots = [_Slot(size, device), _Slot(size, device)]
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.bytes_read = 0
        """Bytes of weights that were read, or are being read ahead."""
        self.waited = 0.0
        """Seconds that computing has waited for weights."""
        for slot, block in zip(self._slots, blocks, strict=False):
            self._fill(slot, block)

    def load(self, block: Block) -> None:
        """Have the block's weights in place; the block that was there before is released.

        Raises:
            ModelError: its file was changed or cut, or cannot be read.

        """
        if self._bound is block:
            return
        slot, other = self._slots
        if self._bound is not None:  # the first slot's: it is done with
            self._next[self._bound] = block
            self._release()
            if slot.left is not None:
                slot.left.record(torch.cuda.current_stream(self._device))
            slot, other = other, slot
        if slot.block is not block:
            self._fill(slot, block)  # another one was guessed
        started = active_seconds()
        self._finish(slot)
        self.waited += active_seconds() - started
        if slot.arrived is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.arrived)
        with torch.no_grad():
            block.bind(slot.device, self._cast)
        self._bound, self._slots = block, [slot, other]
        guess = self._next[block]
        if guess is not block and other.block is not guess:
            self._fill(other, guess)

    def detach(self, output: object) -> object:
        """What a block returns, in memory that stays as it is when the next block comes."""
        if isinstance(output, torch.Tensor):
            return output.clone() if self._is_ours(output) else output
        if any(isinstance(leaf, torch.Tensor) and self._is_ours(leaf) for leaf in pytree.tree_leaves(output)):
            return pytree.tree_map(self.detach, output)
        return output

    def _is_ours(self, tensor: torch.Tensor) -> bool:
        ours = (self._slots[0].device, self._slots[1].device, self._cast)
        return tensor.untyped_storage().data_ptr() in [t.data_ptr() for t in ours if t.numel()]

    def close(self) -> None:
        """Leave all blocks empty, and nothing under way."""
        self._release()
        self._filler.shutdown()
        if self._stream is not None:
            torch.cuda.synchronize(self._device)  # then the host's memory may be let go

    def _release(self) -> None:
        if self._bound is not None:
            self._bound.release()
            self._bound = None

    def _fill(self, slot: _Slot, block: Block) -> None:
        if slot.filling is not None:
            slot.filling.exception()  # until it has ended: how does not matter, nobody waits for that block
        if block not in self._held:
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
        """In the filler's thread: from the files to the host's memory, and on to the device."""
        if slot.arrived is None or slot.left is None or self._stream is None:
            self._reader.read(block, slot.host.data_ptr())
            return
        source = self._kept(block)
        if source is None:
            slot.arrived.synchronize()  # what was there before has left the host's memory
            self._reader.read(block, slot.host.data_ptr())
            source = slot.host
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.left)
            slot.device[: block.size].copy_(source[: block.size], non_blocking=True)
            slot.arrived.record(self._stream)

    def _kept(self, block: Block) -> torch.Tensor | None:
        """The pinned memory of a block that waits in RAM, filled the first time."""
        if block.kept and block not in self._held:
            held = pinned(block.size)
            self._reader.read(block, held.data_ptr())
            self._held[block] = held
        return self._held.get(block)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def pinned(size: int) -> torch.Tensor:
    """Bytes that a device can copy from by itself, exactly as many: torch's own allocator rounds them up.

    Raises:
        MemoryError: the system does not let so many be pinned.

    """
    memory = torch.empty(size, dtype=torch.uint8)
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    failed = cudart.cudaHostRegister(memory.data_ptr(), size, 0)
    if int(failed):
        raise MemoryError(f"{size} bytes of RAM cannot be pinned for the device (CUDA error {int(failed)})")
    # memory that is freed while it is pinned cannot be pinned again
    weakref.finalize(memory, cudart.cudaHostUnregister, memory.data_ptr()).atexit = False
    return memory
