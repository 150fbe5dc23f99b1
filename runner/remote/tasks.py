"""Converts tasks to messages and back; an agent refuses a task whose key does not fit its code and model."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import PluginError, UsageError
from runner.manifest.input_files import file_parameters
from runner.manifest.params import RawParams
from runner.manifest.problems import Position
from runner.manifest.schema import FILE_NAME, NAME_LIMIT
from runner.pipeline.binding import PipelineItem
from runner.pipeline.params import StageParams
from runner.remote.messages import Earlier, Sample, SentParams, TaskMessage
from runner.work.demand import Task
from runner.work.keys import Keyed, Prints, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.work.work import Work

SAMPLES = 256
"""The most items that agents plan a stage with; of more different sizes, the largest are taken."""
NOT_SIZES = ("prompt", "seed", "id")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_ITEM = re.compile(FILE_NAME)


@dataclass
class InputFiles:
    """The files among items' parameters, by the names under which they travel."""

    paths: dict[str, Path] = field(default_factory=dict)

    def given(self, stage: PipelineStage, raw: RawParams) -> SentParams:
        """Parameters as a message has them.

        Raises:
            UsageError: one is a folder, which does not travel.

        """
        files: dict[str, str] = {}
        for name in file_parameters(stage.params):
            value = raw.values.get(name)
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, str) and name in raw.folders:
                    files[path] = self._add(raw.folders[name] / Path(os.path.expanduser(path)), name)  # noqa: PTH111 - never raises
        return SentParams(dict(raw.values), raw.text_only, files)

    def _add(self, path: Path, parameter: str) -> str:
        if path.is_dir():
            raise UsageError(
                f"parameter '{parameter}' is the folder {path}, and folders are not sent to other machines: "
                "run it here (--executor local)"
            )
        digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        name = f"{digest}-{_UNSAFE.sub('_', path.name)[-100:]}"
        self.paths[name] = path
        return name


def samples(pipeline: Pipeline, inputs: InputFiles) -> list[Sample]:
    """Items for agents to plan with: one of each size, the largest first where there are many."""
    found: dict[str, PipelineItem] = {}
    for item in pipeline.items:
        sizes = [
            {name: value for name, value in params.raw.values.items() if name not in NOT_SIZES}
            for params in item.params
        ]
        found.setdefault(repr(sizes), item)
    chosen = sorted(found.values(), key=_extent, reverse=True)[:SAMPLES]
    return [
        Sample(
            item.id,
            [
                inputs.given(stage, params.raw)
                for stage, params in zip(pipeline.stages, item.params, strict=True)
            ],
        )
        for item in chosen
    ]


def _extent(item: PipelineItem) -> float:
    """A number that is larger for items that have larger numbers among their parameters."""
    product = 1.0
    for params in item.params:
        for name, value in params.canonical.items():
            if name not in NOT_SIZES and type(value) in (int, float) and value > 1:
                product *= min(value, 1e6)
    return product


def task_message(work: Work, stage: PipelineStage, task: Task, inputs: InputFiles) -> TaskMessage:
    """The message to an agent for a task.

    Raises:
        UsageError: it has a parameter that does not travel.

    """
    item, params = task.item, task.item.params[stage.index]
    stages = work.pipeline.stages
    earlier = [
        Earlier(n, keyed.key, {p: keyed.key_inputs["params"][p] for p in stages[n].suffix_parameters})
        for n, keyed in enumerate(work.keys[item.id])
        if n in stage.sources
    ]
    return TaskMessage(
        item=item.id,
        key=task.keyed.key,
        key_inputs=dict(task.keyed.key_inputs),
        given=inputs.given(stage, params.raw),
        as_written=dict(params.as_written),
        earlier=earlier,
    )


@dataclass(frozen=True)
class TakenTask:
    """A task as its agent has it: with the keys of its item at the stages that it takes from."""

    task: Task
    keys: tuple[Keyed, ...]


def taken(
    message: TaskMessage, pipeline: Pipeline, stage: PipelineStage, prints: Prints, folder: Path
) -> TakenTask:
    """The task of a message; ``folder`` has the files that were sent for its parameters.

    Raises:
        PluginError: its key is not what this agent would make: other code, model or parameters.

    """
    made_from = message.key_inputs
    wanted = {
        "stage": stage.spec.name,
        "version": stage.spec.version,
        "model": prints.model,
        "dtype": stage.table.dtype,
        "save_dtype": stage.table.save_dtype,
        "dtypes": pipeline.dtypes_elsewhere(stage) or None,
        "quantize": stage.table.quantize,
        "inputs": _inputs(stage, message.earlier),
    }
    if not (_ITEM.fullmatch(message.item) and len(message.item) <= NAME_LIMIT):
        raise PluginError(f"{message.item!r} is no name of an item")
    if key_of(made_from) != message.key or not isinstance(made_from.get("params"), dict):
        raise PluginError(f"item '{message.item}': its key is not the hash of what it says")
    other = [name for name, value in wanted.items() if made_from.get(name) != value]
    loras = made_from.get("lora") or {}
    if _adapters(loras) != {name: (n, file) for n, (name, file) in enumerate(prints.loras.items())}:
        other.append("lora")
    if other:
        raise PluginError(f"item '{message.item}': its key has another {', '.join(other)} than this agent")
    keyed = Keyed(message.key, made_from)
    stages = pipeline.stages
    keys = [Keyed("", {"params": {}})] * len(stages)
    for one in message.earlier:
        keys[one.stage] = Keyed(one.key, {"params": one.suffixes})
    keys[stage.index] = keyed
    params = [StageParams()] * len(stages)
    raw = raw_params(message.given, stage, folder)
    params[stage.index] = StageParams(raw, made_from["params"], message.as_written)
    weights = {name: float(one["weight"]) for name, one in loras.items()}
    item = PipelineItem(message.item, tuple(params), (), _in_the_run, weights)
    return TakenTask(Task(item, keyed, ""), tuple(keys))


def _in_the_run(_name: str | None) -> Position:
    """Where the fields of items are that a run has sent."""
    return Position("the run")


def _adapters(loras: Any) -> dict[str, tuple[Any, Any]] | None:
    """Place and content of the adapters in a key; None if they are not written as a key has them."""
    try:
        made = {str(name): (one["place"], one["file"]) for name, one in loras.items()}
        numbers = all(type(one["weight"]) in (int, float) for one in loras.values())
    except (AttributeError, KeyError, TypeError):
        return None
    return made if numbers else None


def _inputs(stage: PipelineStage, earlier: Sequence[Earlier]) -> dict[str, str]:
    """The inputs of a key, from the keys of earlier stages; those that are not hexadecimal are left out."""
    keys = {one.stage: one.key for one in earlier if re.fullmatch("[0-9a-f]{64}", one.key)}
    return {
        name: f"{keys.get(source.stage, '')}.{source.output}" for name, source in sorted(stage.wires.items())
    }


def raw_params(given: SentParams, stage: PipelineStage, folder: Path) -> RawParams:
    """Parameters as they were given, with the paths of files in ``folder``, where they were sent."""
    values, folders = dict(given.values), {}
    for name in file_parameters(stage.params):
        if name in values:
            values[name] = _renamed(values[name], given.files)
            folders[name] = folder
    return RawParams(values, given.text_only, folders)


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def sampled(pipeline: Pipeline, found: Iterable[Sample], folder: Path) -> tuple[PipelineItem, ...]:
    """The items that an agent plans with.

    Raises:
        PluginError: a sample has not the stages of this pipeline.

    """
    items = []
    weights = {lora.name: lora.weight for stage in pipeline.stages for lora in stage.loras}
    for sample in found:
        if len(sample.stages) != len(pipeline.stages):
            raise PluginError(f"item '{sample.item}' is of another pipeline")
        raws = [raw_params(g, s, folder) for g, s in zip(sample.stages, pipeline.stages, strict=True)]
        params = tuple(StageParams(raw, raw.values) for raw in raws)
        items.append(PipelineItem(sample.item, params, (), _in_the_run, weights))
    return tuple(items)
