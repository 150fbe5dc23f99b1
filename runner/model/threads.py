"""Work for the hub's client, in threads that can be left behind."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from runner.machine.active_time import next_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def in_threads(
    works: Sequence[Callable[[], Any]], count: int = 1, patience: float | None = None
) -> list[Any]:
    """Work in ``count`` threads, so that a signal reaches us at once: the client's own cannot be stopped.

    Returns what each work returned. The first error ends it all.

    Raises:
        TimeoutError: no work came to an end for ``patience`` seconds.

    """
    waiting = deque(enumerate(works))
    done: queue.SimpleQueue[tuple[int, Any, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        while waiting:
            try:
                n, work = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                done.put((n, work(), None))
            except Exception as error:
                done.put((n, None, error))

    for _ in range(min(count, len(works))):
        threading.Thread(target=run, daemon=True).start()
    results: dict[int, Any] = {}
    try:
        for _ in works:
            n, results[n], error = next_of(done, patience)
            if error is not None:
                raise error
    except queue.Empty:
        raise TimeoutError(f"no answer within {patience} s") from None
    finally:
        waiting.clear()
    return [results[n] for n in range(len(works))]
