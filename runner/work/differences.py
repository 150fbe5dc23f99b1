"""Differences between the records of two outputs of a stage: parts of their keys, versions, devices."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.machine.describe import installed_versions
from runner.rundir.directory import KEY_IN_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEY_INPUTS = (
    "stage",
    "version",
    "params",
    "model",
    "lora",
    "dtype",
    "dtypes",
    "save_dtype",
    "quantize",
    "inputs",
)
"""The parts that a key is the hash of: see :mod:`runner.work.keys`."""
HASHES = ("model", "lora", "inputs")
"""Those of them that cannot be computed without the model."""
BY_NAME = ("lora", "dtypes")
"""Those of them that keys without such a part do not have: tables by adapter and by component."""
ENVIRONMENT = ("versions", "device", "threads")
"""What may change the low bits of a result, and is not part of its key."""
SHOWN = 60  # characters of a value

_CONTENT = re.compile(r'"(?:folder-)?sha256:([0-9a-f]{64})"')
"""A file or a secret in canonical form."""

Parts = dict[tuple[str, ...], str]
"""Values in JSON, by part: ``("params", "steps")``, ``("model",)``."""


@dataclass(frozen=True)
class Difference:
    """A part that differs; its value is None where there is no such part."""

    part: tuple[str, ...]
    old: str | None
    new: str | None
    paths: tuple[str, str] = ("", "")
    """Of a parameter that is a file: the old path and the new."""

    def __str__(self) -> str:
        """``steps: 20 -> 28``, ``input latents: 3f0a95c2 -> 9d41b7e8``, ``image: a.png 3f0a95c2 -> ...``."""
        kind, name = self.part[0], self.part[-1]
        named = {
            "inputs": f"input {name}",
            "version": "version of the stage",
            "lora": f"lora {name}",
            "dtypes": f"dtype of {name}",
        }
        old, new = (f"{path} " if path else "" for path in self.paths)
        return f"{named.get(kind, name)}: {old}{self._shown(self.old)} -> {new}{self._shown(self.new)}"

    def _shown(self, value: str | None) -> str:
        if value is None or value == "null":
            return "not set"
        if self.part[0] == "lora":
            lora = json.loads(value)
            return f"weight {lora['weight']:g} of {lora['file'][:KEY_IN_NAME]} (number {lora['place'] + 1})"
        if self.part[0] in HASHES:
            return value.strip('"')[:KEY_IN_NAME]
        if self.part[0] == "params" and (found := _CONTENT.findall(value)):
            return ", ".join(digest[:KEY_IN_NAME] for digest in found)
        shown = value if self.part[0] == "params" else value.strip('"')
        return shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 3]}..."

    def as_dict(self) -> dict[str, Any]:
        old, new = (None if value is None else json.loads(value) for value in (self.old, self.new))
        return {"part": ".".join(self.part), "from": old, "to": new}


def parts(record: Mapping[str, Any], kinds: Sequence[str] = KEY_INPUTS) -> Parts:
    """The parts of a key's inputs, or of a stage's record in a lineage."""
    found: Parts = {}
    for kind in kinds:
        value = record.get(kind, {} if kind in BY_NAME else None)
        if isinstance(value, dict):
            found |= {(kind, name): _json(one) for name, one in value.items()}
        else:
            found[kind,] = _json(value)
    return found


def versions_here(distribution: str) -> Parts:
    """Installed versions of the libraries and of a plugin's distribution."""
    return parts({"versions": installed_versions(distribution)}, ["versions"])


def differences(old: Parts, new: Parts) -> list[Difference]:
    """All parts that differ: in the order of the old, then those that only the new one has."""
    return [Difference(p, old.get(p), new.get(p)) for p in {**old, **new} if old.get(p) != new.get(p)]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
