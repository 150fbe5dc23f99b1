"""The order in which a worker's items run: groups of them, and those that failed again."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from runner.worker.item import ItemRun

BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0  # seconds before failed items run again; doubled each time


def schedule(
    runs: Iterator[ItemRun], size: int, retries: int, stopping: threading.Event
) -> Iterator[list[ItemRun]]:
    """Yield items in groups of ``size``: each item once, then up to ``retries`` times those that failed.

    The caller runs a group before it takes the next one. Ends when ``stopping`` is set.
    """
    failed: list[ItemRun] = []
    for retry in range(retries + 1):
        if retry:
            if not failed or stopping.wait(min(LONGEST_BACK_OFF, BACK_OFF * 2 ** (retry - 1))):
                return
            runs, failed = iter(failed), []
        while not stopping.is_set() and (group := list(islice(runs, size))):
            yield group
            failed += [run for run in group if run.failure]
