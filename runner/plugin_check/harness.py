"""Prepares a stage with two items for checks: the items of a manifest, or a manifest written around a case.

For a case, the inputs are written as hand-offs of an upstream stage, under its keys, so that it never runs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import tomlkit
from pydantic import BaseModel

import runner
from runner.api import Stage
from runner.errors import ModelError
from runner.files import handoff
from runner.files.header import read_header
from runner.files.storage import write_atomically
from runner.manifest.load import load
from runner.pipeline.binding import bind
from runner.placements import RESIDENT, STREAM
from runner.plan.choose import plan_stage
from runner.plugins import Plugin
from runner.supervisor.event_publisher import NOT_MEASURED
from runner.supervisor.jobs import make_job
from runner.supervisor.requests.measuring import measuring
from runner.work.demand import demand
from runner.work.models import resolve_models
from runner.work.work import Work, run_directory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.stage_plan import StagePlan
    from runner.plugins import Plugins
    from runner.protocol import Job
    from runner.work.models import ResolvedModels

ITEMS = ("one", "two")
_SOURCE, _SOURCE_USES = "source", "plugin_check.source"  # the upstream stage whose hand-offs are the inputs
_CHECKED = "checked"


class DigestParams(BaseModel):
    """Parameters of the upstream stage: items with different inputs need different keys."""

    digest_of_inputs: str


@dataclass(frozen=True)
class Inputs:
    """One item's inputs: a safetensors file (perhaps of no tensors), texts, and files."""

    tensors: Path
    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*read_header(self.tensors).tensors, *self.texts, *self.files}


@dataclass(frozen=True)
class Case:
    """What a stage is run on without a manifest: parameters and inputs of each of two items."""

    params: Sequence[Mapping[str, Any]]
    inputs: Sequence[Inputs]
    model: str = ""
    dtype: str = "float32"


@dataclass(frozen=True)
class Harness:
    """A stage of a pipeline whose inputs exist, and the job that makes its items."""

    models: ResolvedModels
    stage: PipelineStage
    work: Work
    plan: StagePlan
    """With all weights resident."""

    @property
    def job(self) -> Job:
        return self._job(self.plan)

    def streamed(self) -> Job | None:
        """The job with weights streamed; None if there is nothing to stream.

        Raises:
            RunnerError: the stage cannot be streamed.

        """
        if not self.plan.need.shapes:
            return None
        return self._job(_plan(self.models, self.stage, STREAM))

    def _job(self, plan: StagePlan) -> Job:
        index = self.stage.index
        tasks = demand(self.work, fresh=[index]).tasks[index]
        placed = replace(plan.chosen, group=len(ITEMS))
        job = make_job(self.work, plan, placed, tasks, self.models.placed(self.stage))
        return replace(job, retries=0)  # a failure must be visible


def from_manifest(manifest: Path, name: str, plugins: Plugins, runs: Path) -> Harness:
    """The stage of that name in a manifest whose first two items have been run in ``runs``.

    Raises:
        RunnerError: the manifest is not valid, or its model is not on this machine.

    """
    return _harness(first_items(bind(load(manifest), plugins)), name, runs)


def first_items(pipeline: Pipeline) -> Pipeline:
    """The pipeline with no more than two items."""
    return replace(pipeline, items=pipeline.items[: len(ITEMS)])


def from_case(stage: Stage, case: Case, plugins: Plugins, runs: Path) -> Harness:
    """The stage in a manifest of its own, with the case's inputs written to ``runs``.

    Raises:
        RunnerError: the stage refuses the case's parameters or inputs.

    """
    known = {name for inputs in case.inputs for name in inputs.names}
    source = Stage(
        name=_SOURCE_USES,
        params=f"{__name__}:{DigestParams.__name__}",
        outputs=tuple(one for one in stage.inputs if one.name in known),
        start=_SOURCE_USES,
    )
    own = Plugin("plugin_check", "stage-runner", runner.__version__, runner, (source,), ())
    path = runs / "check.toml"
    path.write_text(tomlkit.dumps(_manifest(stage, case, has_source=bool(source.outputs))))
    pipeline = bind(load(path), replace(plugins, loaded=[*plugins.loaded, own]))
    harness = _harness(pipeline, _CHECKED, runs)
    if source.outputs:
        for item, inputs in zip(ITEMS, case.inputs, strict=True):
            _write_inputs(harness, source, item, inputs)
    return harness


def _manifest(stage: Stage, case: Case, *, has_source: bool) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for name, params, inputs in zip(ITEMS, case.params, case.inputs, strict=True):
        digest = {"digest_of_inputs": _digest(inputs)} if has_source else {}
        items.append({"id": name, **params, **digest})
    source = [{"name": _SOURCE, "uses": _SOURCE_USES}] if has_source else []
    return {
        "version": 1,
        "name": "check",
        **({"model": {"source": case.model}} if case.model else {}),
        "budget": {"device": "cpu", "threads": 1},  # the case is small
        "stage": [*source, {"name": _CHECKED, "uses": stage.name, "dtype": case.dtype}],
        "item": items,
    }


def _digest(inputs: Inputs) -> str:
    digest = hashlib.sha256(json.dumps(inputs.texts, sort_keys=True).encode())
    for path in (inputs.tensors, *inputs.files.values()):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write_inputs(harness: Harness, source: Stage, item: str, inputs: Inputs) -> None:
    """Write an item's inputs as the hand-off of the upstream stage."""
    key, directory = harness.work.keys[item][0].key, harness.work.directory
    files = {}
    for output in source.outputs:
        if output.name in inputs.files:
            data = inputs.files[output.name].read_bytes()
            path = directory.handoff_file(_SOURCE, key, output.name, getattr(output, "suffix", ""))
            write_atomically(path, data)
            files[output.name] = handoff.record_of_file(path.name, data)
    tables = {"lineage": {}, "text": inputs.texts, "files": files}
    metadata = {name: json.dumps(table, sort_keys=True) for name, table in tables.items()}
    metadata |= {"key": key, "stage": _SOURCE, "item": item}
    write_atomically(directory.handoff(_SOURCE, key), handoff.seal(inputs.tensors.read_bytes(), metadata))


def _harness(pipeline: Pipeline, name: str, runs: Path) -> Harness:
    models = resolve_models(pipeline)
    keys = models.keys()
    if keys is None:
        raise ModelError("the model is not on this machine: run the manifest once")
    stage = next(stage for stage in pipeline.stages if stage.name == name)
    plan = _plan(models, stage, RESIDENT)
    return Harness(models, stage, Work(pipeline, keys, run_directory(pipeline, runs)), plan)


def _plan(models: ResolvedModels, stage: PipelineStage, placement: str) -> StagePlan:
    placed = replace(stage, table=stage.table.model_copy(update={"placement": placement, "device_map": None}))
    with measuring(_OnStderr()):
        return plan_stage(models.pipeline, placed, models.shapes(stage))


class _OnStderr:
    """Tells why activations could not be measured, in the log of the check."""

    def measuring(self, stage: str, sizes: int) -> None:
        """Checks take longer than this."""

    def not_measured(self, stage: str, reason: str) -> None:
        sys.stderr.write(f"{stage}: {NOT_MEASURED.format(reason)}\n")
