"""Memory over time, in a bounded number of points."""

from __future__ import annotations

LIMIT = 160  # points: more than a chart can show; two kilobytes in a journal
FIRST_INTERVAL = 0.05  # seconds; how often memory is sampled


class Series:
    """Samples over time: each point is the maximum of an interval, which doubles when there are too many."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        """Seconds and bytes: at most :data:`LIMIT` of them."""
        self._interval = FIRST_INTERVAL

    def add(self, seconds: float, held: int) -> None:
        self._put(seconds, held)
        while len(self.points) > LIMIT:
            self._interval *= 2
            points, self.points = self.points, []
            for point in points:
                self._put(*point)

    def _put(self, seconds: float, held: int) -> None:
        begin = round(seconds // self._interval * self._interval, 2)
        if self.points and self.points[-1][0] >= begin:
            begin, before = self.points.pop()
            held = max(held, before)
        self.points.append((begin, held))
