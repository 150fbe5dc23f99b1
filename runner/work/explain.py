"""Why each item would run at each stage, or not: part by part, against what was made before.

Reads the run directory and writes nothing; no model is hashed for it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from runner.files.header import HeaderError, read_header
from runner.files.provenance import read_provenance
from runner.rundir.directory import KEY_IN_NAME
from runner.work.demand import demand
from runner.work.differences import (
    HASHES,
    KEY_INPUTS,
    Difference,
    Parts,
    differences,
    parts,
    versions_here,
)
from runner.work.keys import keys_of
from runner.work.work import Work

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.rundir.directory import RunDirectory
    from runner.work.demand import Task
    from runner.work.keys import Keyed
    from runner.work.models import ResolvedModels

THERE, NOT_NEEDED, TO_MAKE, PENDING = "there", "not needed", "to make", "pending"


@dataclass(frozen=True)
class Earlier:
    """Something that was made at a stage before: for which item, under which key, and from what."""

    item: str
    key: str
    parts: Parts
    versions: Parts
    time: float


@dataclass(frozen=True)
class Explanation:
    """One item at one stage."""

    item: str
    stage: str
    key: str | None
    """None where it is pending."""
    state: str
    """``there``, ``not needed`` (nothing that is to be made takes it), ``to make`` or ``pending``."""
    reason: str = ""
    against: Earlier | None = None
    """What is nearest of all that was made at the stage: of the same item, if there is any."""
    differences: Sequence[Difference] = ()
    """From that to what would be made; of what is there, from the versions that made it to those here."""


class Explainer:
    """Explains the items of a pipeline in a run directory; ``forced`` are stages, by index."""

    def __init__(
        self, assembly: ResolvedModels, directory: RunDirectory, forced: Container[int] = ()
    ) -> None:
        self._pipeline = assembly.pipeline
        self._directory = directory
        keys = assembly.keys(hash_missing=False)
        self.pending = keys is None
        """Whether a model is not here or not hashed: then keys are not known, but all else of them is."""
        self._keys = keys or keys_of(self._pipeline, [""] * len(self._pipeline.stages))
        self._kinds = [kind for kind in KEY_INPUTS if keys or kind not in HASHES]
        tasks = demand(Work(self._pipeline, keys, directory), forced).tasks if keys else []
        self._tasks: list[dict[str, Task]] = [
            {item: task for task in of_stage for item in task.items} for of_stage in tasks
        ]
        self._records = list(_records(directory))
        self._earlier = cache(self._look_for_earlier)

    def explain(self, item: str, stage: PipelineStage) -> Explanation:
        keyed = self._keys[item][stage.index]
        if self.pending:
            against, found = self._nearest(stage, item, keyed)
            return Explanation(item, stage.name, None, PENDING, "", against, found)
        task = self._tasks[stage.index].get(item)
        if task is not None:
            against, found = self._nearest(stage, item, keyed)
            return Explanation(item, stage.name, keyed.key, TO_MAKE, task.reason, against, found)
        there = stage.is_terminal or self._directory.handoff(stage.name, keyed.key).exists()
        state = THERE if there else NOT_NEEDED
        return Explanation(
            item, stage.name, keyed.key, state, differences=self._other_versions(stage, keyed.key)
        )

    def _nearest(
        self, stage: PipelineStage, item: str, keyed: Keyed
    ) -> tuple[Earlier | None, list[Difference]]:
        wanted = parts(keyed.key_inputs, self._kinds)
        others = [one for one in self._earlier(stage.index) if one.key != keyed.key]
        own = [one for one in others if one.item == item]
        if not others:
            return None, []
        nearest = max(own or others, key=lambda one: (len(one.parts.items() & wanted.items()), one.time))
        return nearest, differences(nearest.parts, wanted)

    def _other_versions(self, stage: PipelineStage, key: str) -> list[Difference]:
        recorded = next((one.versions for one in self._earlier(stage.index) if one.key == key), None)
        if recorded is None:
            return []
        return differences(recorded, versions_here(self._pipeline.plugins.distribution_of(stage.spec.name)))

    def _look_for_earlier(self, stage: int) -> list[Earlier]:
        """What was made at a stage, as all that came of it tells: its hand-off itself may be gone."""
        name = self._pipeline.stages[stage].name
        found: dict[tuple[str, str], Earlier] = {}
        for item, time, lineage in self._records:
            made = lineage.get(name) if isinstance(lineage, dict) else None
            if isinstance(made, dict):
                key = str(made.get("key"))
                its, versions = parts(made, self._kinds), parts(made, ["versions"])
                found[item, key] = Earlier(item, key, its, versions, time)
        return list(found.values())


def _records(directory: RunDirectory) -> Iterator[tuple[str, float, Any]]:
    """Item, time and lineage of everything in the run directory that tells them."""
    for path in sorted(directory.path.glob("handoff/*/*.safetensors")):
        with contextlib.suppress(OSError, HeaderError, LookupError, ValueError):
            told = read_header(path).metadata
            yield told["item"], path.stat().st_mtime, json.loads(told["lineage"])
    for path in sorted(directory.outputs.glob("*")):
        with contextlib.suppress(OSError, LookupError, TypeError):
            record = read_provenance(path) or {}
            item = path.name.rpartition(f"-{record['key'][:KEY_IN_NAME]}")[0]
            yield item, path.stat().st_mtime, record["lineage"]
