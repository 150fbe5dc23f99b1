"""The warnings of a run, grouped by stage and kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.events import NOTE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.events import Warned

KEPT = 100  # events kept per group
ITEMS_NAMED = 5


@dataclass
class WarningGroup:
    """The warnings of one kind at one stage; ``stage`` is "" for those without one."""

    stage: str
    kind: str
    count: int = 0
    items: dict[str, None] = field(default_factory=dict)
    """An ordered set of ids."""
    first: list[Warned] = field(default_factory=list)

    def add(self, event: Warned) -> None:
        self.count += 1
        if event.item:
            self.items[event.item] = None
        if len(self.first) < KEPT:
            self.first.append(event)

    @property
    def line(self) -> str:
        """A summary in one line: stage, kind, number of items and the first ids."""
        subject = f"{self.stage}: {self.name}" if self.stage else self.name
        if not self.items:
            return subject if self.count == 1 else f"{subject}, {self.count} times"
        items = list(self.items)
        more = f" and {len(items) - ITEMS_NAMED} more" if len(items) > ITEMS_NAMED else ""
        return f"{subject} for {count_of(len(items), 'item')}: {', '.join(items[:ITEMS_NAMED])}{more}"

    @property
    def name(self) -> str:
        """The kind, with spaces."""
        return self.kind.replace("_", " ")


class Warnings:
    """All warnings of a run, by group."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], WarningGroup] = {}

    def __iter__(self) -> Iterator[WarningGroup]:
        return iter(self._groups.values())

    @property
    def count(self) -> int:
        return sum(group.count for group in self)

    def add(self, event: Warned) -> WarningGroup:
        """Add a warning; returns its group."""
        stage = event.stage or ""
        group = self._groups.setdefault((stage, event.kind), WarningGroup(stage, event.kind))
        group.add(event)
        return group


def line_of(event: Warned) -> str:
    """A warning in one line: stage, item and message."""
    about = " ".join(filter(None, (event.stage, event.item)))
    word = NOTE if event.kind == NOTE else "warning"
    return f"{word}: {about}: {event.message}" if about else f"{word}: {event.message}"


def count_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
