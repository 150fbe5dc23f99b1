"""Locks of accelerators: one stage at a time uses an accelerator, across all runs on the machine."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.accelerator.discovery import accelerators, device_named
from runner.rundir.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.rundir.lock import Waiting


class DeviceLocks:
    """The locks of a run's accelerators: files in the temporary folder, which all users share."""

    def __init__(self, devices: Iterable[str], stack: contextlib.ExitStack) -> None:
        """Open the locks of torch devices; ``stack`` closes them.

        Raises:
            StorageError: one cannot be opened.

        """
        names = sorted(device for device in {*devices} if device != "cpu")
        self._locks = {name: stack.enter_context(Lock(_path(name), 0o666)) for name in names}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """For workers to inherit: a lock is free when the last process that holds it has exited."""
        return tuple(lock.descriptor for lock in self._locks.values())

    @contextlib.contextmanager
    def held(self, device: str, waiting: Waiting) -> Iterator[None]:
        """Hold the device's lock, waiting for it if necessary; the CPU has none."""
        lock = self._locks.get(device)
        if lock is None:
            yield
            return
        lock.acquire(device, waiting)
        try:
            yield
        finally:
            lock.release()


def _path(device: str) -> Path:
    card = device_named(device, accelerators())
    name = (card.uuid if card else "") or device.replace(":", "-")
    return Path(tempfile.gettempdir(), f"runner-{name}.lock")
