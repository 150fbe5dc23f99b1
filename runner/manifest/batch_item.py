"""One item of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.manifest.problems import Position


@dataclass(frozen=True)
class BatchItem:
    """The fields that an item sets, and the place of each for error messages."""

    fields: Mapping[str, Any]
    where: Callable[[str | None], Position]
    """The place of a field's value; of the whole item for None."""
    text_only: bool = False
    """Whether the values come from a format that has only strings."""
    where_named: Callable[[str], Position] | None = None
    """The place of a field's name, if that is not beside its value."""
    folder: Path | None = None
    """Where relative paths in its fields start; None for the manifest's folder."""
    id: str = ""
    """Unique in the batch; assigned once all items are known (:func:`runner.manifest.items.expand`)."""

    def where_key(self, field: str) -> Position:
        """The place of a field's name."""
        return (self.where_named or self.where)(field)


def at(place: Position) -> Callable[[str | None], Position]:
    """The ``where`` of an item whose fields are all written in one place."""
    return lambda _field: place
