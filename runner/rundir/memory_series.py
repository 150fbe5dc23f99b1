"""Memory over time, kept small however long it goes on."""

from __future__ import annotations

LIMIT = 160  # points: more than a chart has room for, and two kilobytes in a journal
FIRST_STRETCH = 0.05  # seconds; how often memory is sampled


class Series:
    """Samples in the order of time, thinned as they come: each point is the most of its stretch of time."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        """Seconds and bytes: at most :data:`LIMIT` of them."""
        self._stretch = FIRST_STRETCH

    def add(self, seconds: float, held: int) -> None:
        self._put(seconds, held)
        while len(self.points) > LIMIT:
            self._stretch *= 2
            points, self.points = self.points, []
            for point in points:
                self._put(*point)

    def _put(self, seconds: float, held: int) -> None:
        begin = round(seconds // self._stretch * self._stretch, 2)
        if self.points and self.points[-1][0] >= begin:
            begin, before = self.points.pop()
            held = max(held, before)
        self.points.append((begin, held))
