"""Which tasks must run: walks back from the final outputs to what is missing, and what that is made from."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.files import handoff, provenance
from runner.files.storage import link
from runner.manifest.problems import did_you_mean
from runner.rundir.directory import key_and_rest
from runner.work import ALL_STAGES

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from runner.pipeline.binding import Pipeline, PipelineItem
    from runner.pipeline.stage import PipelineStage
    from runner.work.keys import Keyed
    from runner.work.work import Work


@dataclass(frozen=True)
class Task:
    """A result to make at a stage: its key, and the first item that has this key."""

    item: PipelineItem
    keyed: Keyed
    reason: str
    duplicate_items: list[str] = field(default_factory=list)
    """Ids of further items with the same key, which share the result."""

    @property
    def items(self) -> list[str]:
        """Ids of all items with this key."""
        return [self.item.id, *self.duplicate_items]


@dataclass
class Demand:
    """The tasks of each stage, in the manifest's order, and what is done already."""

    tasks: list[list[Task]]
    cached: list[int]
    """Number of items of each stage that need not run there."""
    damaged: list[Path] = field(default_factory=list)
    renamed: list[tuple[Path, Path]] = field(default_factory=list)
    """Outputs of the same key under another item's name: source and target of the link to make."""

    def items(self, stage: int) -> int:
        """The number of items that a stage, by its index, must make: items of one key share a task."""
        return sum(len(task.items) for task in self.tasks[stage])

    @property
    def nothing(self) -> bool:
        return not any(self.tasks)


def demand(work: Work, fresh: Container[int] = ()) -> Demand:
    """Find out what must run. Reads the run directory, writes nothing.

    Stages in ``fresh``, by index, and all that depend on them run again even if their results exist.
    """
    return _Demand(work, fresh).walk()


class _Demand:
    def __init__(self, work: Work, fresh: Container[int]) -> None:
        self._work = work
        self._directory = work.directory
        stages = work.pipeline.stages
        count = len(stages)
        self._found = Demand([[] for _ in range(count)], [0] * count)
        self._open: list[dict[str, Task]] = [{} for _ in range(count)]
        self._handoffs: dict[Path, str | None] = {}
        self._fresh = [n in fresh for n in range(count)]
        for stage in stages:
            if any(self._fresh[n] for n in stage.sources):
                self._fresh[stage.index] = True

    def walk(self) -> Demand:
        stages = self._work.pipeline.stages
        for item in self._work.pipeline.items:
            needed = {stage.index for stage in stages if stage.is_terminal}
            for stage in reversed(stages):
                if stage.index not in needed:
                    self._found.cached[stage.index] += 1
                    continue
                if self._must_run(stage, item):
                    needed |= stage.sources
        return self._found

    def _must_run(self, stage: PipelineStage, item: PipelineItem) -> bool:
        keyed = self._work.keys[item.id][stage.index]
        task = self._open[stage.index].get(keyed.key)
        if task is not None:
            task.duplicate_items.append(item.id)
            return True
        reason = self._why(stage, item, keyed)
        if reason is None:
            self._found.cached[stage.index] += 1
            return False
        task = Task(item, keyed, reason)
        self._open[stage.index][keyed.key] = task
        self._found.tasks[stage.index].append(task)
        return True

    def _why(self, stage: PipelineStage, item: PipelineItem, keyed: Keyed) -> str | None:
        """Why the stage must run for the item; None if its results exist."""
        if self._fresh[stage.index]:
            return "forced by --fresh"
        reason = self._why_no_handoff(stage, keyed.key) if stage.leaves_handoff else None
        if reason is None and stage.is_terminal:
            reason = self._why_no_output(stage, item.id, keyed.key)
        return reason

    def _why_no_handoff(self, stage: PipelineStage, key: str) -> str | None:
        path = self._directory.handoff(stage.name, key)
        if path not in self._handoffs:
            self._handoffs[path] = self._inspect(path, key)
        return self._handoffs[path]

    def _inspect(self, path: Path, key: str) -> str | None:
        try:
            handoff.read(path, key)
        except FileNotFoundError:
            return "not made yet"
        except (handoff.DamagedError, OSError):
            self._found.damaged.append(path)
            return "its hand-off is damaged"
        return None

    def _why_no_output(self, stage: PipelineStage, item: str, key: str) -> str | None:
        optional = {file.name for file in stage.files if file.optional}
        for name, target in self._work.files(item, stage).items():
            if provenance.has_key(target, key):
                continue
            candidates = self._known_outputs.get(key_and_rest(target.name), [])
            same = next((path for path in candidates if provenance.has_key(path, key)), None)
            if same is not None:
                self._found.renamed.append((same, target))
            elif name not in optional:  # an optional one may have been left out
                return "not made yet"
        return None

    @cached_property
    def _known_outputs(self) -> dict[tuple[str, str], list[Path]]:
        """Existing outputs, by the part of their names after the item."""
        folder = self._directory.outputs
        found: dict[tuple[str, str], list[Path]] = {}
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
        except OSError:
            return found
        for name in names:
            found.setdefault(key_and_rest(name), []).append(folder / name)
        return found


def make_links(found: list[tuple[Path, Path]]) -> None:
    """Link each source, and its sidecar if it has one, to its target."""
    for source, target in found:
        link(source, target)
        if provenance.sidecar(source).exists():
            link(provenance.sidecar(source), provenance.sidecar(target))


def forced_stages(pipeline: Pipeline, fresh: str | None) -> list[int]:
    """The stages, by index, that ``--fresh`` names.

    Raises:
        UsageError: there is no such stage.

    """
    names = [stage.name for stage in pipeline.stages]
    if fresh not in (None, ALL_STAGES, *names):
        hint = did_you_mean(str(fresh), names)
        raise UsageError(f"--fresh {fresh}: there is no such stage{hint} (there are: {', '.join(names)})")
    return [n for n, name in enumerate(names) if fresh in (ALL_STAGES, name)]
