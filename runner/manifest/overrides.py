"""Parses and applies ``--set stage.diffuse.with.steps=4``: values that the command line overrides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tomli

from runner.errors import ExitCode, UsageError
from runner.manifest.bounds import DEEPEST, limit_violations
from runner.manifest.problems import Position, Problems, did_you_mean
from runner.manifest.sources import LORA_WEIGHTS, lora_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from runner.manifest.positions import Path

TEXT_LIMIT = 200  # characters of an override that messages quote


@dataclass(frozen=True)
class Override:
    """One ``--set`` option: its text, the path in the manifest's tables and the value."""

    text: str
    path: Path
    value: Any

    @property
    def where(self) -> Position:
        return Position(f"--set {self.text}", is_override=True)


def apply(raw: dict[str, Any], texts: Sequence[str], problems: Problems) -> list[Override]:
    """Write overrides into a parsed manifest, in order; returns the valid ones, reports the others."""
    applied = []
    for text in texts:
        try:
            override = _parse(raw, text)
            put(raw, override)
        except UsageError as error:
            where = Position(f"--set {text[:TEXT_LIMIT]}", is_override=True)
            problems.add(where, str(error), ExitCode.USAGE)
        else:
            applied.append(override)
    return applied


def choose_executor(tables: Any, name: str) -> None:
    """Set the executor in parsed tables; the parameters of another one go with it."""
    own = tables.get("executor")
    if not isinstance(own, dict) or own.get("uses") != name:
        tables["executor"] = {"uses": name}


def put(tables: Any, override: Override) -> None:
    """Set one value in parsed tables: dictionaries, or a tomlkit document.

    Raises:
        UsageError: a part of the path is not a table.

    """
    for part in override.path[:-1]:
        if isinstance(part, str):
            if not isinstance(tables, dict):
                raise UsageError(f"'{part}' is not in a table")
            tables.setdefault(part, {})
        tables = tables[part]
    if not isinstance(tables, dict) or not isinstance(override.path[-1], str):
        raise UsageError("the key is not in a table; write TABLE.KEY=VALUE, such as budget.vram=6GiB")
    tables[override.path[-1]] = override.value


def _parse(raw: dict[str, Any], text: str) -> Override:
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise UsageError("write it KEY=VALUE, such as stage.diffuse.with.steps=4")
    path: list[str | int] = [parts[0]]
    rest = parts[1:]
    if parts[0] in _NAMES and isinstance(raw.get(parts[0]), list):
        index, rest = _index(parts[0], raw[parts[0]], parts[1:])
        path.append(index)
        if rest[:1] == [LORA_WEIGHTS]:
            rest = [LORA_WEIGHTS, *filter(None, [".".join(rest[1:])])]
    elif parts[0] in ("item", "lora"):
        raise UsageError(f"the manifest has no [[{parts[0]}]]")
    override = Override(text, (*path, *rest), _value(value.strip()))
    for _, what in limit_violations(override.value):
        raise UsageError(f"the value {what}")
    if len(override.path) > DEEPEST:
        raise UsageError(f"the key has more than {DEEPEST} parts")
    return override


def _index(kind: str, tables: list[Any], parts: list[str]) -> tuple[int, list[str]]:
    """The index of the table whose name the parts of a key begin with, and the rest: names may have dots."""
    names = [_NAMES[kind](table) if isinstance(table, dict) else "" for table in tables]
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in names:
            return names.index(name), parts[count:]
    name = parts[0] if parts else ""
    known = ", ".join(filter(None, names))
    raise UsageError(f"the manifest has no {kind} '{name}'{did_you_mean(name, names)} (there are: {known})")


def _name_of_lora(table: dict[str, Any]) -> str:
    name = table.get("name")
    return lora_name(str(table.get("source", "")), name if isinstance(name, str) else None)


_NAMES: Mapping[str, Callable[[dict[str, Any]], str]] = {
    "stage": lambda table: str(table.get("name", "")),
    "item": lambda table: str(table.get("id", "")),
    "lora": _name_of_lora,
}
"""How tables of each list are named in overrides."""


def _value(text: str) -> Any:
    """The text as a TOML value, else as a string, so that `6GiB` needs no quotes."""
    try:
        return tomli.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text
