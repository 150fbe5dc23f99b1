"""From a file to a checked manifest that still knows where everything stands."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomli
from pydantic import ValidationError

from runner.errors import ExitCode
from runner.manifest import overrides
from runner.manifest.bounds import DEEPEST, beyond
from runner.manifest.explain import explain, keys_at, named
from runner.manifest.positions import Positions
from runner.manifest.problems import ManifestError, Position, Problem
from runner.manifest.schema import ManifestTable
from runner.storage import is_lfs_pointer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.manifest import positions

MANIFEST_LIMIT = 16 * 2**20  # bytes; a manifest is written by people, items have files of their own


@dataclass(frozen=True)
class Manifest:
    """A manifest as read: the tables, the text they came from, and where each value stands."""

    path: Path
    text: str
    table: ManifestTable
    overrides: Sequence[overrides.Override]
    positions: Positions
    prompts: Sequence[str] = ()
    """Prompts from the command line, which took the place of the batch."""
    problems: Sequence[Problem] = ()
    """What is wrong so far; the faulty keys are left out of ``table``, so that the rest can be checked."""

    @property
    def folder(self) -> Path:
        """What relative paths in the manifest start from."""
        return self.path.parent

    def where(self, *path: str | int, key: bool = False) -> Position:
        """Where a value (or its key) was given: in the file, or by ``--set``."""
        for override in self.overrides:
            if path[: len(override.path)] == override.path:
                return override.where
        return self.positions.key(path) if key else self.positions.value(path)


def load(path: Path, sets: Sequence[str] = (), prompts: Sequence[str] = ()) -> Manifest:
    """Read, override and check a manifest; ``prompts`` take the place of its batch.

    Raises:
        ManifestError: what is wrong with it, all at once.
        UsageError: an override is not written as one, or names what is not there.

    """
    return parse(path, read_text(path, MANIFEST_LIMIT), sets, prompts)


def parse(path: Path, text: str, sets: Sequence[str] = (), prompts: Sequence[str] = ()) -> Manifest:
    """A manifest of the text that is, or could be, in the file at ``path``; like :func:`load`."""
    try:
        raw = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ManifestError([Problem(_syntax_position(path, text, error), _syntax_words(error))]) from None
    except RecursionError:
        raise ManifestError([Problem(Position(str(path)), "the TOML is nested too deeply")]) from None
    except ValueError:  # of Python's own, about the one thing that it does not read
        raise ManifestError([Problem(Position(str(path)), "a number in it has too many digits")]) from None
    where = _positions(path, text, raw)
    applied = overrides.apply(raw, sets)
    if prompts:
        _replace_batch(raw, prompts)
    table, problems = _check_tables(raw, where, applied)
    manifest = Manifest(path, text, table, applied, where, prompts, problems)
    problems += _names_twice(manifest)
    return manifest


def _positions(path: Path, text: str, raw: dict[str, Any]) -> Positions:
    """Where everything stands, if nothing goes beyond the bounds.

    Raises:
        ManifestError: something does.

    """
    found = list(beyond(raw))
    if any(len(place) >= DEEPEST for place, _ in found):  # its places alone would fill the memory
        where = Positions(str(path), "")
    else:
        where = Positions(str(path), text)
    if found:
        raise ManifestError(Problem(where.value(place), f"'{named(place)}' {what}") for place, what in found)
    return where


def read_text(path: Path, limit: int) -> str:
    """The file's text: UTF-8, no longer than ``limit`` bytes.

    Raises:
        ManifestError: it cannot be read, or is not text.

    """
    try:
        with path.open("rb") as file:  # it may be a pipe or a device, whose size nobody knows
            data = file.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ManifestError([Problem(Position(str(path)), f"cannot be read: {reason}")]) from None
    if len(data) > limit:
        raise ManifestError([Problem(Position(str(path)), f"is larger than {limit >> 20} MiB")])
    if is_lfs_pointer(data):
        message = "is a pointer of git-lfs and not the file itself: run `git lfs pull`"
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


def _syntax_position(path: Path, text: str, error: tomli.TOMLDecodeError) -> Position:
    line, column = error.lineno, error.colno
    lines = text.split("\n")
    return Position(str(path), line, column, lines[line - 1] if line <= len(lines) else "")


def _syntax_words(error: tomli.TOMLDecodeError) -> str:
    twice = re.match(r"Cannot declare \('(stage|item)',\) twice", error.msg)
    if twice:
        return f"[{twice[1]}] is written more than once: several are written [[{twice[1]}]]"
    return error.msg[:1].lower() + error.msg[1:]


def _replace_batch(raw: dict[str, Any], prompts: Sequence[str]) -> None:
    batch = raw.get("batch")
    seeds = batch.get("seeds") if isinstance(batch, dict) else None
    raw["batch"] = {"prompts": list(prompts)} | ({"seeds": seeds} if seeds is not None else {})
    raw.pop("item", None)


def _check_tables(
    raw: dict[str, Any], where: Positions, applied: Sequence[overrides.Override]
) -> tuple[ManifestTable, list[Problem]]:
    """The tables, less the keys that are wrong, and the problems with those.

    Raises:
        ManifestError: without those keys there is no manifest left to look at.

    """
    try:
        return ManifestTable.model_validate(raw), []
    except ValidationError as error:
        problems = _problems(error, where, applied)
        paths = [detail["loc"] for detail in error.errors(include_url=False)]
    try:
        for path in paths:
            _remove(raw, path)
        return ManifestTable.model_validate(raw), problems
    except (ValidationError, LookupError, TypeError):
        raise ManifestError(problems) from None


def _remove(tables: Any, path: positions.Path) -> None:
    """Take a key out of parsed tables; a list goes as a whole, since its other elements would move up."""
    while path and isinstance(path[-1], int):
        path = path[:-1]
    if path in (("stage",), ("item",)):
        raise LookupError(path)
    for part in path[:-1]:
        tables = tables[part]
    if not isinstance(tables, dict):
        raise LookupError(path)  # noqa: TRY004 - nobody gave a wrong type: the key cannot be taken out
    tables.pop(path[-1], None)


def _problems(
    error: ValidationError, where: Positions, applied: Sequence[overrides.Override]
) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False):
        path: positions.Path = detail["loc"]
        message = explain(detail, keys_at(ManifestTable, path[:-1]))
        unknown = detail["type"] == "extra_forbidden"
        override = next((o for o in applied if o.path[: len(path)] == path), None)
        if override is not None:
            code = ExitCode.USAGE if unknown else ExitCode.MANIFEST
            if unknown and len(path) == 1:
                message = f"unknown key '{path[0]}': a stage's parameter is stage.NAME.with.{path[0]}"
            found.append(Problem(override.where, message, code))
        else:
            place = where.key(path) if unknown or detail["type"] == "missing" else where.value(path)
            found.append(Problem(place, message))
    return found


def _names_twice(manifest: Manifest) -> list[Problem]:
    seen: set[str] = set()
    found = []
    for n, stage in enumerate(manifest.table.stage):
        if stage.name in seen:
            message = f"two stages are named '{stage.name}'; each needs a name of its own"
            found.append(Problem(manifest.where("stage", n, "name"), message))
        seen.add(stage.name)
    return found
