"""Transfers of a block's bytes from its files, or from RAM, to the slot that it computes from."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from runner.accelerator.backends.generic import AcceleratorBackend

if TYPE_CHECKING:
    from collections.abc import Container

    from runner.accelerator.backends import Backend
    from runner.stream.blocks import Block
    from runner.stream.reader import Reader


class Transfer(Protocol):
    """Fills one slot; ``memory`` are the slot's bytes, on the device that computes."""

    memory: torch.Tensor

    def fill(self, block: Block) -> None:
        """Load a block's bytes into ``memory``; called in another thread than the other methods.

        Raises:
            ModelError: a file was changed or cut, or cannot be read.

        """

    def await_arrival(self) -> None:
        """Make later computations wait for the bytes."""

    def computed(self) -> None:
        """Make the next `fill` wait for the computations so far."""

    def seconds_stalled(self) -> float:
        """Seconds that the device has waited for bytes since the last call, as far as is known."""


class HostTransfer:
    """For the CPU, which computes from the RAM that files are read into."""

    def __init__(self, size: int, reader: Reader) -> None:
        self.memory = torch.empty(size, dtype=torch.uint8)
        self._reader = reader

    def fill(self, block: Block) -> None:
        self._reader.read(block, self.memory.data_ptr())

    def await_arrival(self) -> None:
        """It has arrived when it is read."""

    def computed(self) -> None:
        """Computing has ended when it returns."""

    def seconds_stalled(self) -> float:
        return 0.0


class PinnedBlocks:
    """Blocks that wait in pinned RAM, each read when it is first needed."""

    def __init__(self, backend: AcceleratorBackend, reader: Reader) -> None:
        self._backend = backend
        self._reader = reader
        self._held: dict[Block, torch.Tensor] = {}

    def __contains__(self, block: object) -> bool:
        return block in self._held

    def get(self, block: Block) -> torch.Tensor | None:
        """The bytes of a block; None for one that is not kept in RAM."""
        if block.in_ram and block not in self._held:
            held = self._backend.pinned(block.size)
            self._reader.read(block, held.data_ptr())
            self._held[block] = held
        return self._held.get(block)


class DeviceTransfer:
    """For an accelerator, which copies from pinned RAM in one stream while it computes in another."""

    def __init__(
        self,
        size: int,
        backend: AcceleratorBackend,
        stream: torch.Stream,
        reader: Reader,
        pinned: PinnedBlocks,
    ) -> None:
        self._backend = backend
        self._stream = stream
        self._reader = reader
        self._pinned = pinned
        self._staging = backend.pinned(size)
        self.memory = torch.empty(size, dtype=torch.uint8, device=backend.device)
        self.memory.record_stream(stream)
        self._arrived, self._computed = backend.event(), backend.event()
        # the allocator may have reused memory that queued computations still read
        self.computed()
        self._stalls: deque[tuple[torch.Event, torch.Event]] = deque()

    def fill(self, block: Block) -> None:
        source = self._pinned.get(block)
        if source is None:
            self._arrived.synchronize()  # the staging memory's previous contents have been copied
            self._reader.read(block, self._staging.data_ptr())
            source = self._staging
        with self._stream:
            self._stream.wait_event(self._computed)
            self.memory[: block.size].copy_(source[: block.size], non_blocking=True)
            self._arrived.record(self._stream)

    def await_arrival(self) -> None:
        computing = self._backend.current_stream()
        before, after = self._backend.event(timing=True), self._backend.event(timing=True)
        before.record(computing)
        computing.wait_event(self._arrived)
        after.record(computing)
        self._stalls.append((before, after))

    def computed(self) -> None:
        self._computed.record(self._backend.current_stream())

    def seconds_stalled(self) -> float:
        seconds = 0.0
        while self._stalls and self._stalls[0][1].query():
            before, after = self._stalls.popleft()
            seconds += before.elapsed_time(after) / 1000
        return seconds


@dataclass(frozen=True)
class Transfers:
    """The transfers of a double buffer's two slots, and the blocks that stay in pinned RAM."""

    each: tuple[Transfer, Transfer]
    pinned: Container[Block] = ()


def transfers(size: int, backend: Backend, reader: Reader) -> Transfers:
    """Transfers for slots of ``size`` bytes, of the kind that the device needs.

    Raises:
        MemoryError: RAM cannot be allocated or pinned.

    """
    if not isinstance(backend, AcceleratorBackend):
        return Transfers((HostTransfer(size, reader), HostTransfer(size, reader)))
    stream, pinned = backend.stream(), PinnedBlocks(backend, reader)
    first, second = (DeviceTransfer(size, backend, stream, reader, pinned) for _ in range(2))
    return Transfers((first, second), pinned)
