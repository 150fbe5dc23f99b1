"""The work of a run: a pipeline, the key of each item at each stage, and the run directory of the results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.rundir.directory import RunDirectory
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
        return output_paths(stage, self.directory, item, self.key(item, stage))

    def outputs(self) -> list[Path]:
        """The files of all terminal stages, in the order of the items, whether they exist or not."""
        terminal = [stage for stage in self.pipeline.stages if stage.is_terminal]
        return [path for item in self.keys for stage in terminal for path in self.files(item, stage).values()]


def output_paths(stage: PipelineStage, directory: RunDirectory, item: str, key: str) -> dict[str, Path]:
    """Where a stage writes its files for an item with this key, by output name."""
    if not stage.is_terminal:
        return {
            file.name: directory.handoff_file(stage.name, key, file.name, file.suffix) for file in stage.files
        }
    suffixes = [file.suffix for file in stage.files]
    return {
        file.name: directory.output(
            item, key, file.name if suffixes.count(file.suffix) > 1 else "", file.suffix
        )
        for file in stage.files
    }
