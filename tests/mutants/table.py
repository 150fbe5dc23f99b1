"""The table of one-line faults: what each changes, which promise that breaks, and the tests that notice."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLES = Path(__file__).parent


@dataclass(frozen=True)
class Mutant:
    """One fault: ``old`` stands once in ``file`` and is replaced by ``new``."""

    file: str
    """Path from the root of the repository."""
    old: str
    new: str
    promise: str
    """What no longer holds with the fault."""
    tests: tuple[str, ...]
    """Ids of the tests that fail with it: at least one of them does."""

    def applied(self, root: Path) -> str | None:
        """The file's text with the fault; None where ``old`` is not in it, or more than once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        return text.replace(self.old, self.new) if text.count(self.old) == 1 else None


def read(folder: Path = TABLES) -> list[Mutant]:
    """All faults of the tables in a folder, in the order of its files."""
    found: list[Mutant] = []
    for path in sorted(folder.glob("*.toml")):
        tables = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
        found += [Mutant(**{**table, "tests": tuple(table["tests"])}) for table in tables]
    return found
