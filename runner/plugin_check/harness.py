"""A stage on harness: two items of a manifest, or of one made up around the stage, as the worker's job.

Where there is no manifest, the stage's inputs are handed in as the hand-offs of a stage before it, which
needs never run: what is there under its key is done.
"""

from __future__ import annotations

import hashlib
import json
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
from runner.plan.choose import plan_stage
from runner.plugins import Plugin
from runner.protocol import RESIDENT, STREAM
from runner.supervisor.jobs import make_job
from runner.work.demand import demand
from runner.work.models import assemble, run_directory
from runner.work.work import Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.plan.choose import StagePlan
    from runner.plugins import Plugins
    from runner.protocol import Job
    from runner.work.models import ResolvedModels

ITEMS = ("one", "two")
_GIVEN = "kit.given"


class DigestParams(BaseModel):
    """What tells items apart whose inputs are handed in."""

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
    """What a stage is tried on, where no manifest says it: parameters and inputs of each of two items."""

    params: Sequence[Mapping[str, Any]]
    inputs: Sequence[Inputs]
    model: str = ""
    dtype: str = "float32"


@dataclass(frozen=True)
class Harness:
    """A stage of a pipeline whose inputs are there, and the job that makes its items."""

    assembly: ResolvedModels
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
            RunnerError: streaming cannot be had.

        """
        if not self.plan.need.shapes:
            return None
        return self._job(_plan(self.assembly, self.stage, STREAM))

    def _job(self, plan: StagePlan) -> Job:
        index = self.stage.index
        tasks = demand(self.work, fresh=[index]).tasks[index]
        placed = replace(plan.chosen, group=len(ITEMS))
        job = make_job(self.work, plan, placed, tasks, self.assembly.model(self.stage))
        return replace(job, retries=0)  # a failure is to be seen


def from_manifest(manifest: Path, name: str, plugins: Plugins, runs: Path) -> Harness:
    """The stage of that name in a manifest that has been run in ``runs``, on its first two items.

    Raises:
        RunnerError: what is wrong with the manifest.

    """
    return _trial(first_items(bind(load(manifest), plugins)), name, runs)


def first_items(pipeline: Pipeline) -> Pipeline:
    """The pipeline with no more than two items."""
    return replace(pipeline, items=pipeline.items[: len(ITEMS)])


def alone(stage: Stage, case: Case, plugins: Plugins, runs: Path) -> Harness:
    """The stage with what is handed in.

    Raises:
        RunnerError: what is given is not what the stage takes.

    """
    known = {name for inputs in case.inputs for name in inputs.names}
    given = Stage(
        name=_GIVEN,
        params=f"{__name__}:{DigestParams.__name__}",
        outputs=tuple(one for one in stage.inputs if one.name in known),
        start=_GIVEN,
    )
    plugins.loaded.append(Plugin("kit", "stage-runner", runner.__version__, runner, (given,), ()))
    path = runs / "check.toml"
    path.write_text(tomlkit.dumps(_manifest(stage, case, hand_in=bool(given.outputs))))
    pipeline = bind(load(path), plugins)
    harness = _trial(pipeline, "checked", runs)
    if given.outputs:
        for item, inputs in zip(ITEMS, case.inputs, strict=True):
            _hand_in(harness, given, item, inputs)
    return harness


def _manifest(stage: Stage, case: Case, *, hand_in: bool) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for name, params, inputs in zip(ITEMS, case.params, case.inputs, strict=True):
        digest = {"digest_of_inputs": _digest(inputs)} if hand_in else {}
        items.append({"id": name, **params, **digest})
    given = [{"name": "given", "uses": _GIVEN}] if hand_in else []
    return {
        "version": 1,
        "name": "check",
        **({"model": {"source": case.model}} if case.model else {}),
        "budget": {"device": "cpu", "threads": 1},  # what is tried is small
        "stage": [*given, {"name": "checked", "uses": stage.name, "dtype": case.dtype}],
        "item": items,
    }


def _digest(inputs: Inputs) -> str:
    told = hashlib.sha256(json.dumps(inputs.texts, sort_keys=True).encode())
    for path in (inputs.tensors, *inputs.files.values()):
        told.update(path.read_bytes())
    return told.hexdigest()


def _hand_in(harness: Harness, given: Stage, item: str, inputs: Inputs) -> None:
    key, directory = harness.work.keys[item][0].key, harness.work.directory
    beside = {}
    for output in given.outputs:
        if output.name in inputs.files:
            data = inputs.files[output.name].read_bytes()
            path = directory.handoff_file("given", key, output.name, getattr(output, "suffix", ""))
            write_atomically(path, data)
            beside[output.name] = handoff.record_of_file(path.name, data)
    tables = {"lineage": {}, "text": inputs.texts, "files": beside}
    told = {name: json.dumps(table, sort_keys=True) for name, table in tables.items()}
    sealed = handoff.seal(inputs.tensors.read_bytes(), {"key": key, "stage": "given", "item": item, **told})
    write_atomically(directory.handoff("given", key), sealed)


def _trial(pipeline: Pipeline, name: str, runs: Path) -> Harness:
    assembly = assemble(pipeline)
    keys = assembly.keys()
    if keys is None:
        raise ModelError("the model is not on this machine: run the manifest once")
    stage = next(stage for stage in pipeline.stages if stage.name == name)
    plan = _plan(assembly, stage, RESIDENT)
    return Harness(assembly, stage, Work(pipeline, keys, run_directory(pipeline, runs)), plan)


def _plan(assembly: ResolvedModels, stage: PipelineStage, placement: str) -> StagePlan:
    wanted = replace(stage, table=stage.table.model_copy(update={"placement": placement, "device_map": None}))
    return plan_stage(assembly.pipeline, wanted, assembly.shapes(stage))
