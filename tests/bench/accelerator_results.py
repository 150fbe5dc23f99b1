"""What the accelerator's benchmark found: results.json as a whole, results.md as a table that grows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OK, FAILED, TIMED_OUT = "ok", "failed", "timed out"
EQUAL, DIFFERENT = "equal", "DIFFER"

Row = dict[str, Any]
"""What was measured; its keys are those that the columns read, and:

``group``, ``hashes``: the first row of a group is the reference that the group's other rows are compared with;
``must_equal``: whether other hashes than the reference's are a failure.
"""


@dataclass
class Part:
    """A part's status and the rows that it has reported."""

    name: str
    status: str = OK
    reason: str = ""
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)


class Results:
    """Writes each part's results to a folder as soon as it has ended."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._json, self._table = folder / "results.json", folder / "results.md"
        self._about = about
        self._references: dict[str, dict[str, str]] = {}
        self.parts: list[Part] = []
        self._append(_heading(about))

    @property
    def failed(self) -> bool:
        return any(part.status != OK for part in self.parts)

    def compare(self, row: Row) -> None:
        """Set a row's ``pixels``: whether they are those of the first row of its group."""
        if "hashes" not in row:
            return
        reference = self._references.setdefault(row["group"], row["hashes"])
        if reference is row["hashes"]:
            row["pixels"] = "reference"
            return
        shared = reference.keys() & row["hashes"].keys()
        if shared:
            same = all(reference[key] == row["hashes"][key] for key in shared)
            row["pixels"] = EQUAL if same else DIFFERENT

    def add(self, part: Part) -> None:
        """Record a part that has ended: in the JSON file, in the table, and on the screen."""
        wrong = [row["what"] for row in part.rows if row.get("must_equal") and row.get("pixels") == DIFFERENT]
        if wrong and part.status == OK:
            part.status, part.reason = FAILED, f"other pixels than the reference: {', '.join(wrong)}"
        self.parts.append(part)
        partial = self._json.with_suffix(".partial")
        partial.write_text(json.dumps({**self._about, "parts": [asdict(p) for p in self.parts]}, indent=1))
        partial.replace(self._json)
        lines = [_line([part.name, *(show(row) for show in COLUMNS.values())]) for row in part.rows]
        if part.status != OK:
            lines.append(
                f"| {part.name} | **{part.status}**: {_cell(part.reason)} |{' |' * (len(COLUMNS) - 1)}"
            )
        self._append(lines)

    def _append(self, lines: list[str]) -> None:
        print(*lines, sep="\n", flush=True)
        with self._table.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)


def _seconds(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(name) is None else f"{row[name]:.2f}"


def _size(name: str) -> Callable[[Row], str]:
    return lambda row: format_size(row[name]) if row.get(name) else "-"


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: _cell(str(row.get(name) or ""))


COLUMNS: dict[str, Callable[[Row], str]] = {
    "what": _text("what"),
    "items": _text("items"),
    "load s": _seconds("load"),
    "in all s": _seconds("seconds"),
    "s an image-step": _seconds("image_step"),
    "VRAM limit": _text("limit"),
    "predicted": _size("predicted"),
    "NVML": _size("nvml"),
    "allocator": _size("allocator"),
    "RAM predicted": _size("ram_predicted"),
    "RAM": _size("ram"),
    "pixels": _text("pixels"),
    "note": _text("note"),
}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())[:300]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(about: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    device = f"{about['name']} ({about['device']}, {format_size(about['memory'])})"
    names = ["part", *COLUMNS]
    return [
        "",
        f"## {about['date']}, {device}, size {about['size']}",
        "",
        f"{versions}. {about['side']} x {about['side']} pixels, {about['steps']} steps.",
        "",
        f"| {' | '.join(names)} |",
        f"|{'---|' * len(names)}",
    ]
