"""Writes components anew into the cache, quantised or converted, before the stage that loads them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from runner.errors import InterruptedRunError, StageError, error_of
from runner.events import Failed, Prepared
from runner.files.storage import TEMPORARY, check_room, storage_errors
from runner.model.selection import WEIGHTS
from runner.supervisor.processes.connection import WorkerConnection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runner.model.preparation import Preparation
    from runner.protocol import Prepare
    from runner.supervisor.processes.spawn import Launcher
    from runner.supervisor.signals import Interrupts

SPARE = 1 << 30  # bytes that it must leave free on the disk
ABANDONED = 3600.0  # seconds after which a file that nobody writes to is that of a killed process


def prepare(
    request: Prepare,
    launcher: Launcher,
    log: Path,
    interrupts: Interrupts,
    progress: Callable[[int, int], None],
) -> None:
    """Write a component into its folder of the cache; ``progress`` takes the bytes so far, and in all.

    Shards that an interrupted attempt has written are used again.

    Raises:
        StorageError: the disk has no room.
        InterruptedRunError: the user asked to stop.
        RunnerError: the worker failed.

    """
    preparation = request.preparation
    _check_room(preparation)
    process = launcher.start(log)
    connection = WorkerConnection(process, request)
    failure: Failed | None = None
    try:
        with interrupts.watched(process.pid):
            for event in connection.events():
                if isinstance(event, Prepared):
                    progress(event.done, event.total)
                elif isinstance(event, Failed):
                    failure = event
                elif interrupts.count:
                    connection.kill()
    finally:
        connection.kill()
        with contextlib.suppress(OSError):  # it may have died while reading its request
            process.commands.close()
    subject = f"component '{preparation.component.name}'"
    if interrupts.count:
        raise InterruptedRunError(f"stopped while {subject} was prepared")
    if failure is not None:
        raise error_of(failure.code, failure.error)
    if not preparation.is_done:
        raise StageError(
            f"the worker that prepared {subject} ended with exit code {connection.exit_code}; see {log}"
        )


def _check_room(request: Preparation) -> None:
    folder = request.target
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        there = sum(path.stat().st_size for path in folder.glob(f"*{WEIGHTS}"))
    subject = f"component '{request.component.name}', {request.scheme}, takes"
    needed = max(0, request.size - there)
    check_room(folder, needed, SPARE, subject, "set RUNNER_CACHE to a larger disk")


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed have begun to write; another run may be writing there now."""
    for path in folder.glob(f".*{TEMPORARY}"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
