"""Two slots of the largest block's size: one computes while the other is filled."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from runner.stream.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.stream.blocks import Block


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


class Slots:
    """Brings blocks, and guesses which one comes next: the one that came next the last time."""

    def __init__(self, blocks: Sequence[Block], device: torch.device) -> None:
        size = max(block.size for block in blocks)
        self._cast = torch.empty(max(b.cast_size for b in blocks), dtype=torch.uint8, device=device)
        self._slots = [_Slot(size, device), _Slot(size, device)]
        self._next = dict(zip(blocks, [*blocks[1:], blocks[0]], strict=True))
        self._bound: Block | None = None
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._held: dict[Block, torch.Tensor] = {}
        self._filler = ThreadPoolExecutor(1, thread_name_prefix="slots")
        self.reader = Reader()
        self.waited = 0.0
        """Seconds that computing has waited for weights."""

    def bring(self, block: Block) -> None:
        """Have the block's weights in place; the block that was there before is released.

        Raises:
            ModelError: its file was changed or cut, or cannot be read.

        """
        if self._bound is block:
            return
        slot, other = self._slots
        if self._bound is not None:  # the first slot's: it is done with
            self._next[self._bound] = block
            self._bound.release()
            if slot.left is not None:
                slot.left.record()
            slot, other = other, slot
        self._bound = None
        if slot.block is not block:
            self._finish(slot)  # another one was guessed
            self._fill(slot, block)
        started = time.monotonic()
        self._finish(slot)
        self.waited += time.monotonic() - started
        if slot.arrived is not None:
            torch.cuda.current_stream().wait_event(slot.arrived)
        block.bind(slot.device, self._cast)
        self._bound, self._slots = block, [slot, other]
        guess = self._next[block]
        if guess is not block and other.block is not guess:
            self._finish(other)
            self._fill(other, guess)

    def _fill(self, slot: _Slot, block: Block) -> None:
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
            self.reader.read(block, slot.host.data_ptr())
            return
        source = self._kept(block)
        if source is None:
            slot.arrived.synchronize()  # what was there before has left the host's memory
            self.reader.read(block, slot.host.data_ptr())
            source = slot.host
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.left)
            slot.device[: block.size].copy_(source[: block.size], non_blocking=True)
            slot.arrived.record(self._stream)

    def _kept(self, block: Block) -> torch.Tensor | None:
        """The pinned memory of a block that waits in RAM, filled the first time."""
        if block.kept and block not in self._held:
            held = pinned(block.size)
            self.reader.read(block, held.data_ptr())
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
    failed = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), size, 0)  # type: ignore[no-untyped-call]
    if int(failed):
        raise MemoryError(f"{size} bytes of RAM cannot be pinned for the device (CUDA error {int(failed)})")
    return memory
