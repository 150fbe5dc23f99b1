"""What a card has in use, sampled from NVIDIA's management library."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Self

import pynvml

if TYPE_CHECKING:
    from types import TracebackType

PAUSE = 0.02  # seconds between two samples


class DevicePeak:
    """Samples a card's memory in use while it is entered.

    The card is expected to have no other user: what was in use at the start is subtracted. Without a ``uuid``
    (other kinds of devices) nothing is sampled.
    """

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._samples: list[tuple[float, int]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._handle: Any = None
        self._before = 0

    def __enter__(self) -> Self:
        if self._uuid:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            self._before = self._used()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._uuid:
            self._thread.join()
            pynvml.nvmlShutdown()

    def between(self, start: float, end: float) -> int | None:
        """The most bytes in use between two times, in seconds since the epoch; None without samples."""
        used = [size for at, size in list(self._samples) if start <= at <= end]
        return max(used) - self._before if used else None

    def _used(self) -> int:
        return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def _sample(self) -> None:
        while not self._stop.wait(PAUSE):
            self._samples.append((time.time(), self._used()))
