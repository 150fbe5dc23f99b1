"""Runs calls of the hub's client in daemon threads, which need not end for the process to exit."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from runner.machine.active_time import next_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def in_threads(calls: Sequence[Callable[[], Any]], count: int = 1, timeout: float | None = None) -> list[Any]:
    """Run calls in ``count`` threads; returns their results in order, or raises their first error.

    The caller can be interrupted by a signal at any time, although the calls themselves cannot be stopped.

    Raises:
        TimeoutError: no call has ended for ``timeout`` seconds.

    """
    waiting = deque(enumerate(calls))
    done: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        while waiting:
            try:
                n, call = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                done.put((n, call(), None))
            except Exception as error:
                done.put((n, None, error))

    for _ in range(min(count, len(calls))):
        threading.Thread(target=run, daemon=True).start()
    results: dict[int, Any] = {}
    try:
        for _ in calls:
            n, results[n], error = next_of(done, timeout)
            if error is not None:
                raise error
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout} s") from None
    finally:
        waiting.clear()
    return [results[n] for n in range(len(calls))]
