"""How what two outputs of a stage are made from differs, part by part of their keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.machine.describe import installed_versions
from runner.rundir.directory import KEY_IN_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INGREDIENTS = ("stage", "version", "params", "model", "dtype", "save_dtype", "inputs")
"""The parts of a key, as :mod:`runner.work.keys` puts them together."""
HASHES = ("model", "inputs")
"""Those of them that a model is needed for."""
CIRCUMSTANCES = ("versions", "device", "threads")
"""What may change the low bits of a result, and is part of no key."""
SHOWN = 60  # characters of a value

Parts = dict[tuple[str, ...], str]
"""Values, as JSON writes them, by part: ``("params", "steps")``, ``("model",)``."""


@dataclass(frozen=True)
class Difference:
    """One part that is another; None where there is no such part."""

    part: tuple[str, ...]
    old: str | None
    new: str | None

    def __str__(self) -> str:
        """``steps: 20 -> 28``, ``input latents: 3f0a95c2 -> 9d41b7e8``."""
        kind, name = self.part[0], self.part[-1]
        named = {"inputs": f"input {name}", "version": "version of the stage"}.get(kind, name)
        return f"{named}: {self._shown(self.old)} -> {self._shown(self.new)}"

    def _shown(self, value: str | None) -> str:
        if value is None or value == "null":
            return "not set"
        if self.part[0] in HASHES:
            return value.strip('"')[:KEY_IN_NAME]
        told = value if self.part[0] == "params" else value.strip('"')
        return told if len(told) <= SHOWN else f"{told[: SHOWN - 3]}..."

    def as_dict(self) -> dict[str, Any]:
        old, new = (None if value is None else json.loads(value) for value in (self.old, self.new))
        return {"part": ".".join(self.part), "from": old, "to": new}


def parts(record: Mapping[str, Any], kinds: Sequence[str] = INGREDIENTS) -> Parts:
    """The parts of a key's ingredients, or of what is recorded beside them."""
    found: Parts = {}
    for kind in kinds:
        value = record.get(kind)
        if isinstance(value, dict):
            found |= {(kind, name): _json(one) for name, one in value.items()}
        else:
            found[kind,] = _json(value)
    return found


def versions_here(distribution: str) -> Parts:
    """Versions of the libraries installed here, and of what a plugin is installed from."""
    return parts({"versions": installed_versions(distribution)}, ["versions"])


def differences(old: Parts, new: Parts) -> list[Difference]:
    """Where they differ; what is in both comes first, in the order of the old."""
    return [Difference(p, old.get(p), new.get(p)) for p in {**old, **new} if old.get(p) != new.get(p)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
