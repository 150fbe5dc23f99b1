"""Streams a small model to a simulated device, whole or with a line of the engine sabotaged."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from changed_imports import import_changed
from plain_tower import Layer, Tower, numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from changed_imports import Change

HIDDEN = (40, 8, 33, 40, 16, 24)


class Streamed(NamedTuple):
    """What came of it."""

    right: bool
    """Whether all results have the bits of the CPU's."""
    violations: list[str]
    error: str = ""
    touched: tuple[bool, bool] = (True, False)
    """For each device, whether it was used."""

    @property
    def clean(self) -> bool:
        return self.right and not self.violations and not self.error


class Lending(Layer):
    """A block that returns a weight of its own, which lies in a slot, beside its result."""

    def forward(self, x: torch.Tensor) -> Any:
        return super().forward(x), self.norm.weight


class LendingTower(Tower):
    """Uses the weights that its blocks return when all blocks have run."""

    def __init__(self) -> None:
        super().__init__(())
        self.blocks = torch.nn.ModuleList(Lending(size) for size in HIDDEN)

    def forward(self, x: torch.Tensor, path: Iterable[int] | None = None) -> torch.Tensor:
        del path
        x, lent = self.first(x), []
        for block in self.blocks:
            x, weight = block(x)
            lent.append(weight)
        result: torch.Tensor = self.last(x * torch.stack(lent).sum(0))
        return result


class Case(NamedTuple):
    """What is streamed: calls in lockstep, each of some steps."""

    calls: int = 3
    steps: int = 2
    dtype: torch.dtype = torch.float32
    in_ram: tuple[int, ...] = ()
    lending: bool = False
    closed: bool = True
    """Whether the stream is closed at the end, rather than dropped while copies are under way."""
    registers: bool = True
    """Whether the device's runtime can pin memory that it has not allocated itself."""
    device: str = "sim:0"


def caught(
    folder: str, cases: Sequence[Case], policies: Sequence[str], changes: Sequence[Change]
) -> tuple[str, Case, Streamed] | None:
    """The first case, under one of the policies, in which a changed engine does not work; None if all do."""
    import torch_sim

    import_changed(changes)
    for case in cases:
        for policy in policies:
            torch_sim.set_policy(policy, 0)
            found = stream(folder, case)
            if not found.clean:
                return policy, case, found
    return None


def stream(folder: str, case: Case) -> Streamed:
    """Run calls of different sizes in lockstep on a device, and compare with the CPU."""
    import torch_sim

    if not case.registers:
        torch_sim.device.DeviceModule.host_register = None
    try:
        right = _stream(Path(folder), case)
        torch.accelerator.synchronize(case.device)
    except Exception as error:
        return Streamed(False, torch_sim.take_violations(), f"{type(error).__name__}: {error}")
    touched = torch_sim.is_touched(0), torch_sim.is_touched(1)
    return Streamed(right, torch_sim.take_violations(), touched=touched)


def _prompt_stream(device: torch.device) -> Any:
    """A stream whose first copies are queued on the device before anything else is, however slow the disk."""
    from runner.stream.stream import Stream  # not before its source is changed

    class PromptStream(Stream):
        def add(self, *arguments: Any, **options: Any) -> None:
            super().add(*arguments, **options)
            self.await_queued()

        def await_queued(self) -> None:
            """Wait until the thread that reads blocks has queued the copies of all that it was asked for."""
            assert self._buffer is not None
            self._buffer._filler.submit(int).result()

    return PromptStream(device)


def _stream(folder: Path, case: Case) -> bool:
    from towers import as_resident, as_streamed, together

    def call(tower: Any, number: int, device: torch.device) -> torch.Tensor:
        x = numbers(number, rows=2 + number, dtype=case.dtype).to(device)
        for _ in range(case.steps + number % 2):
            x = tower(x) / 2
        return x.cpu()

    resident = as_resident(folder, case.dtype, model=_empty(case))
    expected = [call(resident, n, torch.device("cpu")) for n in range(case.calls)]
    device = torch.device(case.device)
    torch.accelerator.set_device_index(device.index)  # as a worker does
    _use_memory(device)
    kept = {f"blocks.{n}" for n in case.in_ram}
    blocks = _prompt_stream(device)
    tower = as_streamed(folder, ("blocks",), case.dtype, blocks, _empty(case), device, kept.__contains__)[
        0
    ]  # no other name is left that would keep the stream
    found = together(blocks, [partial(call, tower, n, device) for n in range(case.calls)])
    if case.closed:
        blocks.close()
    else:
        blocks.await_queued()  # copies are under way when all is dropped
    del tower, blocks
    gc.collect()
    _use_memory(device)
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def idle_after_closing(folder: str) -> list[bool]:
    """For each stream that copied weights, whether it has nothing left to do when the blocks are closed."""
    from towers import as_streamed

    from runner.accelerator.backends import backend_of

    device = torch.device("sim:0")
    backend: Any = backend_of(device)
    made: list[torch.Stream] = []

    def stream() -> torch.Stream:
        made.append(torch.Stream(device))
        return made[-1]

    backend.stream = stream
    _, blocks = as_streamed(Path(folder), device=device)
    kept = blocks._buffer
    blocks.close()
    assert kept is not None, "the slots' memory, whose release is work for the streams"
    return [copies.query() for copies in made]


def bytes_read(folder: str) -> int:
    """Bytes that are read when a model whose blocks stay in RAM runs twice."""
    from towers import as_streamed

    tower, blocks = as_streamed(Path(folder), device=torch.device("sim:0"), in_ram=lambda _block: True)
    for _ in range(2):
        tower(numbers(1).to("sim:0"))
    return blocks.bytes_read


def stalled(finished: int) -> list[float]:
    """Seconds that three waits of 5 ms count for when some of them are over, and when all are."""
    from runner.accelerator.backends.generic import AcceleratorBackend
    from runner.stream.reader import Reader
    from runner.stream.transfer import DeviceTransfer, PinnedBlocks

    ended: list[bool] = []

    class Mark:
        def record(self, stream: torch.Stream) -> None:
            self.at = len(ended)
            ended.append(len(ended) < 2 * finished)

        def query(self) -> bool:
            return ended[self.at]

        def elapsed_time(self, end: Mark) -> float:
            return 5.0 * (end.at - self.at)

    class Timed(AcceleratorBackend):
        def event(self, *, timing: bool = False) -> Any:
            return Mark() if timing else super().event()

    backend, reader = Timed(torch.device("sim:0")), Reader()
    transfer = DeviceTransfer(64, backend, backend.stream(), reader, PinnedBlocks(backend, reader))
    for _ in range(3):
        transfer.await_arrival()
    found = [transfer.seconds_stalled(), transfer.seconds_stalled()]
    ended[:] = [True] * len(ended)
    return [*found, transfer.seconds_stalled(), transfer.seconds_stalled()]


class OwnStreams(NamedTuple):
    """What came of calls that compute in streams of their own."""

    right: list[bool]
    kept: list[bool]
    """For each call, whether it found the stream or device that it had set after each block, and began with
    the one that was set outside."""
    violations: list[str]


def own_streams(folder: str) -> OwnStreams:
    """Run calls in lockstep, some of them in a stream of their own, one with another current device."""
    import torch_sim
    from towers import as_resident, as_streamed, together

    device = torch.device("sim:0")
    tower, blocks = as_streamed(Path(folder), device=device)
    plain = as_resident(Path(folder))
    outside = torch.accelerator.current_stream()
    kept = [True] * 4

    def call(number: int) -> torch.Tensor:
        kept[number] = torch.accelerator.current_stream() == outside
        own = torch.Stream(device) if number in (1, 2) else outside
        if number == 3:
            torch.accelerator.set_device_index(1)
            own = torch.accelerator.current_stream()
        if number in (1, 2):
            own.wait_stream(outside)  # which has copied the resident weights
        with own:
            x = numbers(number, rows=3 + number).to(device)
            for block in (tower.first, *tower.blocks):
                x = block(x)
                kept[number] &= torch.accelerator.current_stream() == own
            return x.cpu()

    found = together(blocks, [partial(call, number) for number in range(4)])
    kept.append(torch.accelerator.current_stream() == outside)
    right = []
    for number, result in enumerate(found):
        x = numbers(number, rows=3 + number)
        for block in (plain.first, *plain.blocks):
            x = block(x)
        right.append(torch.equal(x, result))
    blocks.close()
    torch.accelerator.synchronize()
    return OwnStreams(right, kept, torch_sim.take_violations())


def _empty(case: Case) -> Tower:
    with torch.device("meta"):
        return LendingTower() if case.lending else Tower(HIDDEN)


def _use_memory(device: torch.device) -> None:
    """Give the device work on memory that is freed at once, and so is used again by what comes next."""
    for size in (1 << 10, 1 << 12, 1 << 13, 1 << 15):
        for _ in range(4):
            torch.ones(size, device=device).mul_(3).sum()
