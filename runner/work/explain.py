"""Explains why each item would run at each stage, by comparing it with earlier results.

Reads the run directory, writes nothing, and hashes no model.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from runner.files.header import HeaderError, read_header
from runner.files.provenance import read_provenance
from runner.manifest.input_files import file_parameters
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
    from collections.abc import Container, Iterator, Mapping, Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.rundir.directory import RunDirectory
    from runner.work.demand import Task
    from runner.work.keys import Keyed
    from runner.work.models import ResolvedModels

THERE, NOT_NEEDED, TO_MAKE, PENDING = "there", "not needed", "to make", "pending"


@dataclass(frozen=True)
class Earlier:
    """An earlier result of a stage: its item, key, key inputs and versions, and the file's time."""

    item: str
    key: str
    parts: Parts
    versions: Parts
    time: float
    as_written: Mapping[str, Any]


@dataclass(frozen=True)
class Explanation:
    """One item at one stage."""

    item: str
    stage: str
    key: str | None
    """None if it is pending."""
    state: str
    """``there``, ``not needed`` (by any stage that must run), ``to make`` or ``pending``."""
    reason: str = ""
    against: Earlier | None = None
    """The most similar earlier result of the stage: of the same item, if there is any."""
    differences: Sequence[Difference] = ()
    """From ``against`` to the new result; for a result that is there, its versions and those here."""


class Explainer:
    """Explains the items of a pipeline in a run directory; ``forced`` are stages, by index."""

    def __init__(
        self, resolved: ResolvedModels, directory: RunDirectory, forced: Container[int] = ()
    ) -> None:
        self._pipeline = resolved.pipeline
        self._directory = directory
        keys = resolved.keys(hash_missing=False)
        self.pending = keys is None
        """Whether a model is missing or not hashed: then only the other key inputs are known."""
        self._keys = keys or keys_of(self._pipeline)
        self._kinds = [kind for kind in KEY_INPUTS if keys or kind not in HASHES]
        tasks = demand(Work(self._pipeline, keys, directory), forced).tasks if keys else []
        self._tasks: list[dict[str, Task]] = [
            {item: task for task in of_stage for item in task.items} for of_stage in tasks
        ]
        self._items = {item.id: item for item in self._pipeline.items}
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
        new = parts(keyed.key_inputs, self._kinds)
        others = [one for one in self._earlier(stage.index) if one.key != keyed.key]
        own = [one for one in others if one.item == item]
        if not others:
            return None, []
        nearest = max(own or others, key=lambda one: (len(one.parts.items() & new.items()), one.time))
        return nearest, self._with_paths(differences(nearest.parts, new), stage, item, nearest)

    def _with_paths(
        self, found: Sequence[Difference], stage: PipelineStage, item: str, nearest: Earlier
    ) -> list[Difference]:
        """The differences with the paths of parameters that are files."""
        files = file_parameters(stage.params)
        here = self._items[item].params[stage.index].as_written

        def path(one: Difference, written: Mapping[str, Any]) -> str:
            return str(written.get(one.part[-1], "")) if one.part[-1] in files else ""

        return [replace(one, paths=(path(one, nearest.as_written), path(one, here))) for one in found]

    def _other_versions(self, stage: PipelineStage, key: str) -> list[Difference]:
        recorded = next((one.versions for one in self._earlier(stage.index) if one.key == key), None)
        if recorded is None:
            return []
        return differences(recorded, versions_here(self._pipeline.plugins.distribution_of(stage.spec.name)))

    def _look_for_earlier(self, stage: int) -> list[Earlier]:
        """Earlier results of a stage, from the lineages of all files: its own hand-offs may be gone."""
        name = self._pipeline.stages[stage].name
        found: dict[tuple[str, str], Earlier] = {}
        for item, time, lineage in self._records:
            made = lineage.get(name) if isinstance(lineage, dict) else None
            if isinstance(made, dict):
                key = str(made.get("key"))
                its, versions = parts(made, self._kinds), parts(made, ["versions"])
                written = made.get("as_written")
                written = written if isinstance(written, dict) else {}
                found[item, key] = Earlier(item, key, its, versions, time, written)
        return list(found.values())


def _records(directory: RunDirectory) -> Iterator[tuple[str, float, Any]]:
    """Item, time and lineage of each file in the run directory that records them."""
    for path in sorted(directory.path.glob("handoff/*/*.safetensors")):
        with contextlib.suppress(OSError, HeaderError, LookupError, ValueError):
            metadata = read_header(path).metadata
            yield metadata["item"], path.stat().st_mtime, json.loads(metadata["lineage"])
    for path in sorted(directory.outputs.glob("*")):
        with contextlib.suppress(OSError, LookupError, TypeError):
            record = read_provenance(path) or {}
            item = path.name.rpartition(f"-{record['key'][:KEY_IN_NAME]}")[0]
            yield item, path.stat().st_mtime, record["lineage"]
