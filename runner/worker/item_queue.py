"""The items of a job that have not begun; an open job gets more while its worker runs."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_Item = TypeVar("_Item")


class ItemQueue(Generic[_Item]):
    """Items in the order that they came in. The worker's main thread takes them; another one adds them."""

    def __init__(self, items: Iterable[_Item], *, is_open: bool, want: Callable[[], None]) -> None:
        """``is_open``: more may come. ``want`` is called when the worker has nothing to do."""
        self._changed = threading.Condition()
        self._items = deque(items)
        self._open = is_open
        self._stopped = False
        self._want = want

    def add(self, items: Iterable[_Item], *, last: bool) -> None:
        """Add items; with ``last``, no more will come."""
        with self._changed:
            self._items.extend(items)
            self._open = self._open and not last
            self._changed.notify_all()

    def stop(self) -> None:
        """No more items will come, and none is waited for."""
        with self._changed:
            self._open, self._stopped = False, True
            self._changed.notify_all()

    def take(self, most: int, *, wait: bool) -> list[_Item]:
        """Up to ``most`` items: those that are there, however few.

        With ``wait``, it waits for one if more may come; an empty list then means that none will.
        """
        with self._changed:
            if wait and self._open and not self._items:
                self._want()
                self._changed.wait_for(lambda: self._items or not self._open)
            return [self._items.popleft() for _ in range(min(most, len(self._items)))]

    def pause(self, seconds: float) -> bool:
        """Wait for so long; ends at once when stopped, and, with True, when an item comes."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._stopped, seconds)
            return bool(self._items)
