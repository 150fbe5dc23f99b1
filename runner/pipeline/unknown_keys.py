"""Unknown keys of a manifest: the tables that they belong in, or the similar keys that exist."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.manifest import schema
from runner.manifest.explain import keys_at, named
from runner.manifest.params import names_of
from runner.manifest.problems import did_you_mean
from runner.manifest.sources import LORA_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.manifest.batch_item import BatchItem
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Position, Problems

_TABLES = {
    "": names_of(schema.ManifestTable),
    "model": names_of(schema.ModelSource),
    "budget": names_of(schema.Budget),
    "stage": names_of(schema.StageTable),
    "lora": names_of(schema.LoraTable),
    "batch": names_of(schema.Batch),
    "run": names_of(schema.RunTable),
    "item": ["id", LORA_WEIGHTS],
}
_TITLES = {"": "the top of the manifest", "stage": "[[stage]]", "lora": "[[lora]]", "item": "[[item]]"}
PLACES_NAMED = 3
ELSEWHERE = 0.8
"""Least similarity (0 to 1) to a key of another table, for it to be suggested."""


@dataclass(frozen=True)
class KnownKeys:
    """The keys that a manifest can have: those of its tables, and the parameters of its stages by name."""

    parameters: Mapping[str, Sequence[str]]

    def hint(self, key: str, near: Sequence[str], where: Position, stage: str = "") -> str:
        """A suggestion for an unknown key, to end a message with; empty if there is none.

        ``near`` are the keys of the table that the key is in; ``stage`` is the stage of that table.
        """
        meant = did_you_mean(key, near)
        places = self._as_overrides(key) if where.is_override else self._places(key, stage)
        if places:
            verb = "is set as" if where.is_override else "belongs in"
            belongs = f"{verb} {' or '.join(places[:PLACES_NAMED])}"
            plural = any(name.startswith(key) for name in near)  # `seeds` of the batch, for `seed`
            return f"{meant} ('{key}' {belongs})" if meant and plural else f"; it {belongs}"
        if meant:
            return meant
        everything = {name for keys in (*_TABLES.values(), *self.parameters.values()) for name in keys}
        other = difflib.get_close_matches(key, sorted(everything), n=1, cutoff=ELSEWHERE)
        if not other or where.is_override:
            return ""
        return f"; did you mean '{other[0]}', which belongs in {' or '.join(self._places(other[0], stage))}?"

    def _places(self, key: str, stage: str) -> list[str]:
        """The tables that have the key, as they are written; ``stage`` is the one with the unknown key."""
        stages = [name for name, keys in self.parameters.items() if key in keys]
        if stage in stages:
            return ["[stage.with]"]
        tables = [table for table, keys in _TABLES.items() if key in keys]
        places = [f"[stage.{table}]" for table in tables if stage and table in ("budget", "model")]
        places += [_TITLES.get(table, f"[{table}]") for table in tables]
        places += ["[with]", "[[item]]"] if stages else []
        return places + [f"[stage.with] of stage '{name}'" for name in stages]

    def _as_overrides(self, key: str) -> list[str]:
        tables = [table for table, keys in _TABLES.items() if key in keys]
        paths = [
            f"{table}.NAME.{key}" if table in ("stage", "lora") else f"{table}.{key}"
            for table in tables
            if table
        ]
        own = [f"stage.{name}.with.{key}" for name, keys in self.parameters.items() if key in keys]
        return ([f"with.{key}"] if own else []) + own + paths


def check_unknown_keys(
    manifest: Manifest, parameters: Mapping[str, Sequence[str]], problems: Problems
) -> None:
    """Add problems for keys that no table has, and keys of ``with`` that the stage does not declare.

    ``parameters`` are those of each stage whose plugin is installed.
    """
    known = KnownKeys(parameters)
    for path in manifest.unknown:
        where, key = manifest.where(*path, key=True), str(path[-1])
        stage = manifest.table.stage[path[1]].name if path[0] == "stage" and isinstance(path[1], int) else ""
        hint = known.hint(key, keys_at(schema.ManifestTable, path[:-1]), where, stage)
        if not hint and where.is_override and len(path) == 1:
            hint = f": a stage's parameter is stage.NAME.with.{key}"
        problems.add(where, f"unknown key '{named(path)}'{hint}", _code(where))
    for n, stage_table in enumerate(manifest.table.stage):
        names = parameters.get(stage_table.name)
        for key in stage_table.with_:
            if names is not None and key not in names:
                where = manifest.where("stage", n, "with", key, key=True)
                hint = known.hint(key, names, where)
                problems.add(where, f"{stage_table.uses} has no parameter '{key}'{hint}", _code(where))


def check_unknown_fields(
    items: Sequence[BatchItem], parameters: Mapping[str, Sequence[str]], problems: Problems
) -> None:
    """Add problems for fields of items that no stage declares."""
    known = KnownKeys(parameters)
    declared = {name for names in parameters.values() for name in names}
    for item in items:
        for name in item.fields:
            if name not in declared and name != LORA_WEIGHTS:
                where = item.where_key(name)
                hint = known.hint(name, [*declared, "id", LORA_WEIGHTS], where)
                problems.add(where, f"unknown key '{name}': no stage of this manifest has it{hint}")


def check_unknown_with(
    manifest: Manifest, parameters: Mapping[str, Sequence[str]], problems: Problems
) -> None:
    """Add problems for keys of ``[with]`` that no stage declares."""
    known = KnownKeys(parameters)
    declared = dict.fromkeys(name for names in parameters.values() for name in names)
    for name in manifest.table.with_:
        if name not in declared:
            where = manifest.where("with", name, key=True)
            hint = known.hint(name, [*declared], where)
            message = f"unknown key '{name}' in [with]: no stage of this manifest has it{hint}"
            problems.add(where, message, _code(where))


def _code(where: Position) -> ExitCode:
    return ExitCode.USAGE if where.is_override else ExitCode.MANIFEST
