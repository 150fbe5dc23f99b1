"""Which files of a run directory the next run of its manifests needs.

Its manifests are ``manifest.toml``, as last run, and the manifest files of all runs in its journal: after
``runner run night.toml --prompt ...``, the next ``runner run night.toml`` still finds its results.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ModelError
from runner.files import provenance
from runner.manifest.load import load
from runner.pipeline.binding import Pipeline, bind
from runner.rundir.history import read_runs
from runner.work.demand import demand
from runner.work.models import resolve_models
from runner.work.work import Work

if TYPE_CHECKING:
    from runner.plugins import Plugins
    from runner.rundir.directory import RunDirectory
    from runner.work.work import StageKey


@dataclass
class RetentionSet:
    """What all manifests of a run directory need."""

    stages: set[str] = field(default_factory=set)
    last_stages: set[str] = field(default_factory=set)
    """Terminal stages: their hand-offs, if any, are outputs."""
    results: set[StageKey] = field(default_factory=set)
    """All results of the manifests, made or not."""
    to_make: set[StageKey] = field(default_factory=set)
    """Results that are missing."""
    taken: set[StageKey] = field(default_factory=set)
    """Hand-offs that the next run would read or find complete, if it has anything to do."""
    outputs: set[Path] = field(default_factory=set)
    """Outputs that such a run would find done."""


def needs_of(directory: RunDirectory, plugins: Plugins) -> RetentionSet:
    """What must be kept for the next run of each manifest that was run in this directory.

    Raises:
        RunnerError: a manifest is invalid, or a plugin or model is missing.

    """
    needs = RetentionSet()
    seen = []
    for pipeline in _pipelines(directory, plugins):
        resolved = resolve_models(pipeline)
        keys = resolved.keys()
        if keys is None:
            absent = ", ".join(source.source for source, model in resolved.models.items() if model is None)
            raise ModelError(f"{absent or 'what is known of a LoRA'} is no longer here")
        stages_and_keys = ([stage.name for stage in pipeline.stages], keys)
        if stages_and_keys not in seen:  # manifest.toml is usually the same as the manifest file
            seen.append(stages_and_keys)
            _add(needs, Work(pipeline, keys, directory))
    return needs


def _pipelines(directory: RunDirectory, plugins: Plugins) -> list[Pipeline]:
    pipelines = [bind(load(directory.manifest), plugins)]
    run_from = {Path(run.manifest): None for run in read_runs(directory.journal) if run.manifest}
    for path in run_from:
        if path.is_file():  # else it cannot run again
            manifest = load(path)
            if manifest.table.name == directory.path.name:
                pipelines.append(bind(manifest, plugins))
    return pipelines


def _add(needs: RetentionSet, work: Work) -> None:
    found, stages = demand(work), work.pipeline.stages
    terminal = [stage for stage in stages if stage.is_terminal]
    needs.stages |= {stage.name for stage in stages}
    needs.last_stages |= {stage.name for stage in terminal}
    for stage in stages:
        needs.results |= {(stage.name, key) for key in work.stage_keys(stage)}
        for task in found.tasks[stage.index]:
            needs.to_make.add((stage.name, task.keyed.key))
            needs.taken |= work.sources(task.item.id, stage)
    if found.nothing and not found.renamed:
        return
    for stage in terminal:
        needs.taken |= {(stage.name, key) for key in work.stage_keys(stage)}
    outputs = [*(source for source, _ in found.renamed), *work.outputs()]
    needs.outputs |= {*outputs, *map(provenance.sidecar, outputs)}
