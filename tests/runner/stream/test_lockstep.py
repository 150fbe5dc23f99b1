"""Calls in lockstep: whatever way they take through the blocks, and however they end."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import greenlet
import pytest
import torch
from towers import HIDDEN, as_resident, as_streamed, make, numbers, stored_bytes, together

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from runner.stream.stream import Stream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "tower", shards=2)


@pytest.fixture
def streamed(folder: Path) -> tuple[Any, Stream]:
    return as_streamed(folder)


def steps_of(tower: Any, seed: int, steps: int, rows: int = 3) -> torch.Tensor:
    x = numbers(seed, rows)
    for _ in range(steps):
        x = tower(x)
    return x


class Stopped(BaseException):
    pass


def stop_after(count: int) -> Any:
    """A reason to stop, once calls were let go on so often; then none again, as if it had been taken back."""
    asked = iter(range(10_000))
    return lambda: Stopped() if next(asked) == count else None


@pytest.mark.parametrize("group", [1, 2, 7])
def test_bytes_read_do_not_depend_on_the_number_of_calls(folder: Path, group: int) -> None:
    tower, stream = as_streamed(folder)
    together(stream, [lambda n=n: steps_of(tower, n, 1 + n % 5, rows=n + 1) for n in range(4, 4 + group)])
    once = stored_bytes(folder)
    assert stream.bytes_read == 5 * once + stored_bytes(folder, ["blocks.0"])


def test_the_next_group_goes_on_with_what_was_read_ahead(folder: Path) -> None:
    tower, stream = as_streamed(folder)
    for _ in range(3):
        together(stream, [lambda n=n: steps_of(tower, n, 2) for n in range(3)])
    assert stream.bytes_read == 6 * stored_bytes(folder) + stored_bytes(folder, ["blocks.0"])


PATHS = [
    [0, 1, 2, 3, 4],
    [4, 3, 2, 1, 0],
    [2, 2, 2, 0],
    [],
    [3],
    [0, 4, 0, 4, 1],
    [1, 1],
]


def test_every_way_through_the_blocks(folder: Path, streamed: tuple[Any, Stream]) -> None:
    resident, (tower, stream) = as_resident(folder), streamed

    def call(model: Any, n: int) -> torch.Tensor:
        return model(model(numbers(n, n + 1), PATHS[n]), PATHS[-n])

    results = together(stream, [lambda n=n: call(tower, n) for n in range(len(PATHS))])
    assert all(torch.equal(results[n], call(resident, n)) for n in range(len(PATHS)))


def test_outside_of_lockstep_blocks_come_when_they_are_called(
    folder: Path, streamed: tuple[Any, Stream]
) -> None:
    resident, (tower, _) = as_resident(folder), streamed
    for path in PATHS:
        assert torch.equal(tower(numbers(1), path), resident(numbers(1), path))


def test_a_call_that_catches_its_error_leaves_the_others_alone(
    folder: Path, streamed: tuple[Any, Stream]
) -> None:
    resident, (tower, stream) = as_resident(folder), streamed

    def call(n: int) -> Any:
        if n != 1:
            return steps_of(tower, n, 3)
        try:
            tower(tower(numbers(1)), iter([0, 1, 99]))
        except IndexError as error:
            return error
        return None

    results = together(stream, [lambda n=n: call(n) for n in range(3)])
    assert isinstance(results[1], IndexError)
    assert all(torch.equal(results[n], steps_of(resident, n, 3)) for n in (0, 2))


def test_what_a_call_raises_ends_the_others_in_their_own_way(streamed: tuple[Any, Stream]) -> None:
    tower, stream = streamed
    seen = []

    def cleans_up(n: int) -> None:
        try:
            steps_of(tower, n, 5)
        except BaseException as error:
            seen.append((n, type(error), torch.is_autocast_enabled("cpu")))
            raise

    def with_autocast() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            cleans_up(2)

    def fails() -> None:
        tower(numbers(0), [0, 1])
        raise ValueError("this one")

    with pytest.raises(ValueError, match="this one"):
        together(stream, [lambda: cleans_up(0), fails, with_autocast])
    assert seen == [(0, greenlet.GreenletExit, False), (2, greenlet.GreenletExit, True)]
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("after", [0, 1, 3, 4, 9])
def test_a_reason_to_stop_is_raised_wherever_a_call_waits(
    folder: Path, streamed: tuple[Any, Stream], after: int
) -> None:
    resident, (tower, stream) = as_resident(folder), streamed
    begun, stopped, cleaned = [], [], []

    def call(n: int) -> None:
        begun.append(n)
        try:
            steps_of(tower, n, 3)
        except Stopped:
            stopped.append(n)
        finally:
            if n == 2:  # what it does to clean up may itself come to a block
                try:
                    tower(numbers(n), [4])
                except Stopped:
                    cleaned.append(n)

    stream.run([lambda n=n: call(n) for n in range(3)], stop_after(after))
    assert begun == stopped == list(range(min(after, 3)))
    assert cleaned == [2] * (after >= 3)

    again = together(stream, [lambda n=n: steps_of(tower, n, 2) for n in range(3)])
    assert all(torch.equal(again[n], steps_of(resident, n, 2)) for n in range(3))


def test_a_reason_to_stop_that_no_call_takes_is_raised(streamed: tuple[Any, Stream]) -> None:
    tower, stream = streamed
    ended = []

    def call(n: int) -> None:
        try:
            steps_of(tower, n, 3)
        finally:
            ended.append(n)

    with pytest.raises(Stopped):
        stream.run([lambda n=n: call(n) for n in range(3)], stop_after(7))
    assert ended == [0, 1, 2]


def test_a_call_may_switch_between_greenlets_of_its_own(folder: Path, streamed: tuple[Any, Stream]) -> None:
    resident, (tower, stream) = as_resident(folder), streamed

    def call(n: int) -> torch.Tensor:
        return tower(greenlet.greenlet(lambda: tower(numbers(n))).switch())

    results = together(stream, [lambda n=n: call(n) for n in range(3)])
    assert all(torch.equal(results[n], steps_of(resident, n, 2)) for n in range(3))


def test_a_block_called_from_another_thread_is_refused(folder: Path, streamed: tuple[Any, Stream]) -> None:
    resident, (tower, stream) = as_resident(folder), streamed
    refused = []

    def elsewhere() -> None:
        try:
            tower(numbers(0))
        except RuntimeError as error:
            refused.append(str(error))

    def call() -> torch.Tensor:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return steps_of(tower, 1, 2)

    (result,) = together(stream, [call])
    call()
    assert refused == ["the streamed block 'blocks.0' was called from another thread"] * 2
    assert torch.equal(result, steps_of(resident, 1, 2))


def test_lockstep_in_lockstep_is_refused(folder: Path, streamed: tuple[Any, Stream]) -> None:
    resident, (tower, stream) = as_resident(folder), streamed

    def call() -> torch.Tensor:
        with pytest.raises(RuntimeError, match="cannot run others"):
            together(stream, [lambda: tower(numbers(1))])
        return tower(numbers(0))

    (result,) = together(stream, [call])
    assert torch.equal(result, resident(numbers(0)))


def test_a_component_loaded_by_a_call_joins_in(tmp_path: Path, folder: Path) -> None:
    """Its blocks may be larger than those that the slots were made for."""
    larger = make(tmp_path / "larger", hidden=(100, 7, 90))
    residents = as_resident(folder), as_resident(larger)
    tower, stream = as_streamed(folder)
    second: list[Any] = []

    def call(n: int) -> torch.Tensor:
        x = steps_of(tower, n, 1)
        if not second:
            second.append(as_streamed(larger, stream=stream)[0])
        return tower(second[0](x))

    results = together(stream, [lambda n=n: call(n) for n in range(3)])
    for n in range(3):
        assert torch.equal(results[n], residents[0](residents[1](steps_of(residents[0], n, 1))))
    assert stream.bytes_read >= 2 * stored_bytes(folder) + stored_bytes(larger)


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_blocks_are_read_once(tmp_path: Path, count: int) -> None:
    folder = make(tmp_path / "few", hidden=HIDDEN[:count])
    resident, (tower, stream) = as_resident(folder), as_streamed(folder)
    results = together(stream, [lambda n=n: steps_of(tower, n, 4) for n in range(3)])
    assert all(torch.equal(results[n], steps_of(resident, n, 4)) for n in range(3))
    assert stream.bytes_read == stored_bytes(folder)


def test_a_way_that_is_taken_again_is_guessed(folder: Path, streamed: tuple[Any, Stream]) -> None:
    """After the first time no block is read that does not run."""
    tower, stream = streamed
    path = (0, 2, 3)

    def read_in(rounds: int) -> int:
        before = stream.bytes_read

        def call() -> None:
            for _ in range(rounds):
                tower(numbers(1), path)

        together(stream, [call])
        return stream.bytes_read - before

    read_in(2)
    once = sum(stored_bytes(folder, [f"blocks.{n}"]) for n in path)
    assert read_in(7) - read_in(2) == 5 * once


def test_what_is_to_be_entered_for_a_call_is_entered_in_its_turns_alone(
    streamed: tuple[Any, Stream],
) -> None:
    tower, stream = streamed
    inside: list[int] = []
    seen: list[tuple[int, list[int]]] = []

    @contextlib.contextmanager
    def during(call: int) -> Iterator[None]:
        inside.append(call)
        yield
        inside.remove(call)

    def call(number: int) -> None:
        for _ in range(2):
            seen.append((number, list(inside)))
            tower(numbers(number))
            seen.append((number, list(inside)))

    stream.run([lambda: call(0), lambda: call(1)], lambda: None, during)
    assert len(seen) == 8
    assert all(entered == [number] for number, entered in seen)
    assert inside == []
