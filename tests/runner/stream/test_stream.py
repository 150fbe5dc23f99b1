"""A stream over its life: what it holds, what it counts, and other components that join it."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from towers import as_resident, as_streamed, make, numbers, stored_bytes, together
from waiting import wait_until

from runner.stream.blocks import OffloadedParameter

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.stream.stream import Stream

MIB = 1 << 20


def held() -> int:
    """Bytes of anonymous memory of this process."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line]
    return int(line.split()[1]) * 1024


def some_steps(tower: Any, stream: Stream, steps: int) -> None:
    def call(n: int) -> None:
        x = numbers(n)
        for _ in range(steps):
            x = tower(x)

    together(stream, [lambda n=n: call(n) for n in range(4)])


def test_nothing_grows_and_two_slots_are_all_there_is(tmp_path: Path) -> None:
    block = 4 * MIB
    hidden = (block // (2 * 24 * 4),) * 4
    folder = make(tmp_path / "tower", hidden=hidden)
    gc.collect()
    before = held()
    tower, stream = as_streamed(folder)
    some_steps(tower, stream, 2)
    after_two = held()
    assert after_two - before < 2 * block + 6 * MIB  # of 16
    some_steps(tower, stream, 100)
    assert held() - after_two < 2 * MIB
    assert stream.bytes_read == 102 * stored_bytes(folder) + stored_bytes(folder, ["blocks.0"])


def test_a_component_may_join_when_the_slots_are_made(tmp_path: Path) -> None:
    first, larger = make(tmp_path / "first"), make(tmp_path / "larger", hidden=(100, 7, 90))
    tower, stream = as_streamed(first)
    residents = [as_resident(first), as_resident(larger)]
    assert torch.equal(tower(numbers(1), [0, 1]), residents[0](numbers(1), [0, 1]))
    read, waited = stream.bytes_read, stream.waited
    assert read == stored_bytes(first, [f"blocks.{n}" for n in range(3)])
    other, _ = as_streamed(larger, stream=stream)
    assert stream.bytes_read == read + stored_bytes(first, ["blocks.0", "blocks.1"])
    assert stream.waited == waited
    assert all(
        isinstance(weight, OffloadedParameter) for weight in tower.blocks.parameters() if weight.numel()
    )

    results = together(stream, [lambda n=n: tower(other(tower(numbers(n)))) for n in range(3)])
    for n in range(3):
        assert torch.equal(results[n], residents[0](residents[1](residents[0](numbers(n)))))
    assert stream.bytes_read > read
    assert stream.waited > waited


def test_the_first_two_blocks_are_read_before_they_are_asked_for(
    tmp_path: Path, read_by: Callable[..., None]
) -> None:
    """While the stage's start goes on."""
    folder = make(tmp_path / "tower")
    whole, reads = os.preadv, []

    def preadv(descriptor: int, buffers: Any, offset: int) -> int:
        reads.append(offset)
        return whole(descriptor, buffers, offset)

    read_by(preadv)
    tower, stream = as_streamed(folder)
    wait_until(lambda: len(reads) == 2, 30, "two blocks are read, each at once")
    assert stream.bytes_read == stored_bytes(folder, ["blocks.0", "blocks.1"])
    assert torch.equal(tower(numbers(1)), as_resident(folder)(numbers(1)))
    assert stream.bytes_read == stored_bytes(folder) + stored_bytes(folder, ["blocks.0"])


def test_closing_waits_until_nothing_is_being_read(tmp_path: Path, read_by: Callable[..., None]) -> None:
    whole, go, log = os.preadv, threading.Event(), []

    def preadv(descriptor: int, buffers: Any, offset: int) -> int:
        go.wait()
        log.append("read")
        return whole(descriptor, buffers, offset)

    read_by(preadv)
    _, stream = as_streamed(make(tmp_path / "tower"))
    threading.Timer(0.2, go.set).start()
    stream.close()
    log.append("closed")
    assert log == ["read", "read", "closed"]


def test_the_same_component_twice(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    one, stream = as_streamed(folder)
    two, _ = as_streamed(folder, ["blocks.1", "blocks.3"], torch.bfloat16, stream=stream)
    wide, narrow = as_resident(folder), as_resident(folder, torch.bfloat16)

    def call(one: Any, two: Any, n: int) -> torch.Tensor:
        return one(two(one(numbers(n)).bfloat16()).float())

    results = together(stream, [lambda n=n: call(one, two, n) for n in range(3)])
    assert all(torch.equal(results[n], call(wide, narrow, n)) for n in range(3))


def test_with_and_without_inference_mode(tmp_path: Path) -> None:
    """Slots that are made in one are used in the other."""
    folder = make(tmp_path / "tower")
    expected = as_resident(folder, torch.bfloat16)(numbers(1, dtype=torch.bfloat16))
    for modes in ((True, False, True), (False, True, False)):
        tower, stream = as_streamed(folder, dtype=torch.bfloat16)
        for mode in modes:
            with torch.inference_mode(mode), torch.set_grad_enabled(not mode):
                x = numbers(1, dtype=torch.bfloat16)
                (result,) = together(stream, [lambda x=x, tower=tower: tower(x)])
                assert result.is_inference() == mode
                assert torch.equal(result, expected)


def test_a_stream_without_blocks_runs_calls_all_the_same(tmp_path: Path) -> None:
    tower, stream = as_streamed(make(tmp_path / "tower"), ["no.such.block"])
    assert not stream.active
    assert torch.equal(*together(stream, [lambda: tower(numbers(1))] * 2))
    assert together(stream, []) == []


def test_a_stream_that_is_let_go_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    tower, stream = as_streamed(make(tmp_path / "tower"))
    tower(numbers(1))
    assert set(threading.enumerate()) - before
    del tower, stream
    wait_until(
        lambda: gc.collect() >= 0 and set(threading.enumerate()) <= before, 30, "its threads have ended"
    )
