"""The order in which a worker's items run: groups of them, and those that failed again."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from runner.worker.item import ItemRun
    from runner.worker.item_queue import ItemQueue

    _Item = TypeVar("_Item")

BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0  # seconds before failed items run again; doubled each time


def schedule(
    items: ItemQueue[_Item],
    begin: Callable[[_Item], ItemRun],
    size: int,
    retries: int,
    stopping: threading.Event,
) -> Iterator[list[ItemRun]]:
    """Yield items in groups of up to ``size``; those that failed up to ``retries`` times more.

    A group has the items that are there: no more are waited for, as their sender may wait for its end. Failed
    items run again when no other item is there. The caller runs a group before it takes the next one. Ends
    when ``stopping`` is set.
    """
    failed: list[ItemRun] = []
    again: deque[ItemRun] = deque()
    while not stopping.is_set():
        group = [again.popleft() for _ in range(min(size, len(again)))]
        group = group or [begin(item) for item in items.take(size, wait=not failed)]
        if group:
            yield group
            failed += [run for run in group if run.failure and run.attempts <= retries]
        elif not failed:
            return
        elif not items.pause(_back_off(failed)):
            again.extend(failed)
            failed.clear()


def _back_off(failed: list[ItemRun]) -> float:
    attempts = max(run.attempts for run in failed)
    return min(LONGEST_BACK_OFF, BACK_OFF * 2.0 ** (attempts - 1))
