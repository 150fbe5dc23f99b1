"""The work of a run: a pipeline, the key of each item at each stage, and the run directory of the results."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from runner.pipeline.suffixes import suffix_of
from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.work.keys import Keys

StageKey = tuple[str, str]
"""A stage's name and a key: identifies one result of the stage."""


@dataclass(frozen=True)
class Work:
    """A pipeline, its items' keys, and the run directory where results are looked for and written."""

    pipeline: Pipeline
    keys: Keys
    directory: RunDirectory

    def key(self, item: str, stage: PipelineStage) -> str:
        """The key of an item, given by its id, at a stage."""
        return self.keys[item][stage.index].key

    def stage_keys(self, stage: PipelineStage) -> set[str]:
        """The keys of all items at a stage."""
        return {keyed[stage.index].key for keyed in self.keys.values()}

    def sources(self, item: str, stage: PipelineStage) -> set[StageKey]:
        """The hand-offs that the stage reads for an item."""
        return {(self.pipeline.stages[n].name, self.keys[item][n].key) for n in stage.sources}

    def files(self, item: str, stage: PipelineStage) -> dict[str, Path]:
        """Where the stage writes its files for an item, by output name."""
        keyed = self.keys[item][stage.index]
        return output_paths(stage, self.directory, item, keyed.key, keyed.key_inputs["params"])

    def handoff_files(self, stage: PipelineStage, key: str) -> list[Path]:
        """The files of a result that a later stage reads."""
        return [*output_paths(stage, self.directory, "", key, self._params[stage.name, key]).values()]

    @cached_property
    def _params(self) -> dict[StageKey, Mapping[str, Any]]:
        """The parameters of each result."""
        stages = self.pipeline.stages
        keyed = [(stage, one[stage.index]) for one in self.keys.values() for stage in stages]
        return {(stage.name, one.key): one.key_inputs["params"] for stage, one in keyed}

    def outputs(self) -> list[Path]:
        """The files of all terminal stages, in the order of the items, whether they exist or not."""
        terminal = [stage for stage in self.pipeline.stages if stage.is_terminal]
        return [path for item in self.keys for stage in terminal for path in self.files(item, stage).values()]


def output_paths(
    stage: PipelineStage, directory: RunDirectory, item: str, key: str, params: Mapping[str, Any]
) -> dict[str, Path]:
    """Where a stage writes its files for an item with this key and parameters, by output name."""
    suffixes = {file.name: suffix_of(file, params) for file in stage.files}
    if not stage.is_terminal:
        return {
            name: directory.handoff_file(stage.name, key, name, suffix) for name, suffix in suffixes.items()
        }
    count = Counter(suffixes.values())
    return {
        name: directory.output(item, key, name if count[suffix] > 1 else "", suffix)
        for name, suffix in suffixes.items()
    }


def run_directory(pipeline: Pipeline, runs: Path) -> RunDirectory:
    """The directory of a pipeline's runs; absolute, since a stage may change its own working directory."""
    return RunDirectory(runs.absolute() / pipeline.manifest.table.name)
