"""Reads a manifest and checks it against the schema; keeps the position of each value for messages."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner.files.storage import is_lfs_pointer
from runner.manifest import overrides
from runner.manifest.bounds import DEEPEST, limit_violations
from runner.manifest.explain import explain, named
from runner.manifest.positions import Path as KeyPath
from runner.manifest.positions import Positions
from runner.manifest.problems import ManifestError, Position, Problem, Problems
from runner.manifest.schema import UNKNOWN, ManifestTable
from runner.manifest.syntax import read_toml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

MANIFEST_LIMIT = 16 * 2**20  # bytes; large batches belong in item files


@dataclass(frozen=True)
class Manifest:
    """A manifest as read: its tables, its text and the position of each value."""

    path: Path
    text: str
    table: ManifestTable
    overrides: Sequence[overrides.Override]
    positions: Positions
    prompts: Sequence[str] = ()
    """Prompts from the command line, which replaced the batch."""
    executor: str | None = None
    """The executor from the command line, which replaced another one with its parameters."""
    problems: Sequence[Problem] = ()
    """Errors so far; faulty keys are left out of ``table``, so that the rest can be checked."""
    unknown: Sequence[KeyPath] = ()
    """Paths of unknown keys; they are reported once the stages' parameters are known, for better hints."""

    @property
    def folder(self) -> Path:
        """The base of relative paths in the manifest."""
        return self.path.parent

    def where(self, *path: str | int, key: bool = False) -> Position:
        """The position of a value (or of its key): in the file, or an option of the command."""
        if path == ("executor", "uses") and self.executor is not None:
            return Position(f"--executor {self.executor}", is_override=True)
        for override in self.overrides:
            within = path[: len(override.path)] == override.path
            around = override.path[: len(path)] == path and not self.positions.has(path)
            if within or around:
                return override.where
        return self.positions.key(path) if key else self.positions.value(path)


def load(
    path: Path, sets: Sequence[str] = (), prompts: Sequence[str] = (), executor: str | None = None
) -> Manifest:
    """Read a manifest, apply overrides and check it; ``prompts`` replace its batch, ``executor`` its own.

    Raises:
        ManifestError: it cannot be read, or is not TOML; other errors are in ``Manifest.problems``.

    """
    return parse(path, read_text(path, MANIFEST_LIMIT), sets, prompts, executor)


def parse(
    path: Path,
    text: str,
    sets: Sequence[str] = (),
    prompts: Sequence[str] = (),
    executor: str | None = None,
) -> Manifest:
    """Like :func:`load`, for a given text; ``path`` is used in messages and as the base of paths."""
    problems = Problems()
    raw, text = read_toml(path, text, problems)
    where = _positions(path, text, raw)
    if executor is not None:
        overrides.choose_executor(raw, executor)
    applied = overrides.apply(raw, sets, problems)
    if prompts:
        _replace_batch(raw, prompts)
    table, errors = _check_tables(raw)
    unknown = [detail["loc"] for detail in errors if detail["type"] == "extra_forbidden"]
    manifest = Manifest(path, text, table, applied, where, prompts, executor, problems.found, unknown)
    _report_errors(manifest, errors, problems)
    _report_duplicate_stages(manifest, problems)
    return manifest


def _positions(path: Path, text: str, raw: dict[str, Any]) -> Positions:
    """The positions in a text whose parsed value is within the limits.

    Raises:
        ManifestError: it is not.

    """
    found = list(limit_violations(raw))
    if any(len(place) >= DEEPEST for place, _ in found):  # their paths alone could fill the memory
        where = Positions(str(path), "")
    else:
        where = Positions(str(path), text)
    if found:
        raise ManifestError(Problem(where.value(place), f"'{named(place)}' {what}") for place, what in found)
    return where


def read_text(path: Path, limit: int) -> str:
    """The text of a UTF-8 file of at most ``limit`` bytes.

    Raises:
        ManifestError: it cannot be read, is longer, or is not text.

    """
    try:
        with path.open("rb") as file:  # it may be a pipe or a device, whose size is unknown
            data = file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ManifestError([Problem(Position(str(path)), f"cannot be read: {reason}")]) from None
    if len(data) > limit:
        raise ManifestError([Problem(Position(str(path)), f"is larger than {limit >> 20} MiB")])
    if is_lfs_pointer(data):
        message = "is a git-lfs pointer, not the file itself: run `git lfs pull`"
        raise ManifestError([Problem(Position(str(path)), message)])
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ManifestError([Problem(Position(str(path)), "is UTF-16; save it as UTF-8")])
    if b"\0" in data:
        raise ManifestError([Problem(Position(str(path)), "is a binary file, not text")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        where = Position(str(path), line, column)
        raise ManifestError([Problem(where, "is not UTF-8 here; save the file as UTF-8")]) from None


def _replace_batch(raw: dict[str, Any], prompts: Sequence[str]) -> None:
    batch = raw.get("batch")
    seeds = batch.get("seeds") if isinstance(batch, dict) else None
    raw["batch"] = {"prompts": list(prompts)} | ({"seeds": seeds} if seeds is not None else {})
    raw.pop("item", None)


def _check_tables(raw: dict[str, Any]) -> tuple[ManifestTable, list[ErrorDetails]]:
    """The tables with faulty values removed or replaced, and the errors."""
    try:
        return ManifestTable.model_validate(raw), []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for detail in errors:
        if detail["type"] != "missing":
            detail["loc"] = _existing(raw, detail["loc"])
    for detail in errors:
        _remove_faulty(raw, detail["loc"])
    return ManifestTable.model_validate(raw), errors


def _existing(raw: Any, path: KeyPath) -> KeyPath:
    """The part of a path that exists in the parsed tables: pydantic's may end with a member of a union."""
    for depth, part in enumerate(path):
        within = isinstance(raw, dict) and part in raw
        if not (within or (isinstance(raw, list) and isinstance(part, int))):
            return path[:depth]
        raw = raw[part]
    return path


def _remove_faulty(raw: dict[str, Any], path: KeyPath) -> None:
    """Remove a key from parsed tables, or replace it by a placeholder if it is required.

    A list is removed as a whole, since removing elements would shift the indices of the others; stages are
    replaced one by one.
    """
    table: Any = raw
    place: KeyPath = path[:1]
    for part, following in pairwise(path):
        within = table[part] if isinstance(part, int) or part in table else None
        is_stages = place == ("stage",) and isinstance(within, list)
        if not (is_stages or isinstance(within, dict)):
            break
        table, place = within, (*place, following)
    substitute = _substitute(place)
    if substitute is not None:
        table[place[-1]] = substitute
    else:
        table.pop(place[-1], None)


def _substitute(path: KeyPath) -> Any:
    """The placeholder of a required value while the rest is checked; None for an optional one."""
    match path:
        case ("version",):
            return 1
        case ("name",):
            return "unnamed"
        case ("stage",):
            return [{"name": "unnamed", "uses": UNKNOWN}]
        case ("stage", int(n)):
            return {"name": f"unnamed-{n + 1}", "uses": UNKNOWN}
        case ("stage", int(n), "name"):
            return f"unnamed-{n + 1}"
        case ("stage", int(), "uses") | ("model", "source") | ("stage", int(), "model", "source"):
            return UNKNOWN
    return None


def _report_errors(manifest: Manifest, errors: Sequence[ErrorDetails], problems: Problems) -> None:
    """Report wrong and missing values; the errors of a union's members become one message."""
    messages: dict[tuple[KeyPath, bool], list[str]] = {}
    for detail in errors:
        if detail["type"] != "extra_forbidden":
            place = (detail["loc"], detail["type"] == "missing")
            messages.setdefault(place, []).append(explain(detail))
    for (path, is_missing), found in messages.items():
        problems.add(manifest.where(*path, key=is_missing), ", or ".join(found))


def _report_duplicate_stages(manifest: Manifest, problems: Problems) -> None:
    seen: set[str] = set()
    for n, stage in enumerate(manifest.table.stage):
        if stage.name in seen:
            message = f"two stages are named '{stage.name}'; stage names must be unique"
            problems.add(manifest.where("stage", n, "name"), message)
        seen.add(stage.name)
