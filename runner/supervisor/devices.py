"""Cards that runs share: each stage has its card for itself, and runs take turns."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from runner.machine.devices import accelerators
from runner.rundir.lock import Lock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.rundir.lock import Waiting


class DeviceLocks:
    """The locks of a run's accelerators; they lie where all users of the machine find them."""

    def __init__(self, devices: Iterable[str], stack: contextlib.ExitStack) -> None:
        """Open the locks of torch devices; ``stack`` closes them.

        Raises:
            StorageError: one cannot be opened.

        """
        cards = sorted(device for device in set(devices) if device != "cpu")
        self._locks = {card: stack.enter_context(Lock(_path(card), 0o666)) for card in cards}

    @property
    def descriptors(self) -> tuple[int, ...]:
        """To be passed on to workers: a card is free when the last of them has gone."""
        return tuple(lock.descriptor for lock in self._locks.values())

    @contextlib.contextmanager
    def held(self, device: str, waiting: Waiting) -> Iterator[None]:
        """Have the device for oneself, waiting for one's turn; the CPU is everybody's."""
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
    number = int(device.partition(":")[2])
    found = accelerators()
    name = found[number].uuid if number < len(found) else device.replace(":", "-")
    return Path(tempfile.gettempdir(), f"runner-{name}.lock")
