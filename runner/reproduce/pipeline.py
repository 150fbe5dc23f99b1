"""From what outputs say of themselves back to a pipeline that makes them again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from runner.manifest.batch_item import BatchItem, at
from runner.manifest.load import parse
from runner.manifest.params import canonical
from runner.manifest.problems import Position, Problems
from runner.manifest.schema import FILE_NAME, NAME_LIMIT
from runner.pipeline.binding import Pipeline, PipelineItem, bind_stages
from runner.pipeline.params import ParamsBinder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.plugins import Plugins
    from runner.reproduce.lineage import Provenance, StageRecord

NAME = "reproduce"
"""Of the run directory. Keys keep apart what is made there."""

Tables = dict[str, Any]


@dataclass(frozen=True)
class Original:
    """A file, and what it says of itself."""

    file: Path
    said: Provenance


def manifest_of(said: Provenance, plugins: Plugins, model: str | None = None) -> str:
    """The stages as a manifest has them: what has the same can be made again in one run.

    It asks for a like device and as many threads. ``model`` takes the place of the sources that were
    recorded. Parameters are no part of it: each original has its own.

    Raises:
        PluginError: a stage is offered by no installed plugin.

    """
    records = said.in_order()
    stages: list[Tables] = []
    for name, record in records.items():
        stage = {"name": name, "uses": record.stage, "dtype": record.dtype}
        if record.save_dtype is not None:
            stage["save_dtype"] = record.save_dtype
        stages.append({**stage, "from": _from(record, records, plugins)})
    tables: Tables = {"version": 1, "name": NAME}
    loading = [(n, r.source) for n, r in enumerate(records.values()) if r.source]
    sources = [{"source": model} if model else source.pinned for _, source in loading]
    _put(tables, [stages[n] for n, _ in loading], "model", sources)
    budgets = [{"device": _device(r.device), "threads": r.threads} for r in records.values()]
    _put(tables, stages, "budget", budgets)
    text: str = tomlkit.dumps({**tables, "stage": stages})
    return f"# The stages of what `runner reproduce` made again; its items are the files given to it.\n{text}"


def pipeline_of(
    text: str, originals: Sequence[Original], plugins: Plugins, sets: Sequence[str] = ()
) -> Pipeline:
    """A pipeline with an item for each of the originals, in their order; ``text`` is the manifest of all.

    Relative folders start where the user is.

    Raises:
        ManifestError: the stages, or their parameters, are no longer what they were.
        UsageError: an override is not written as one, or names what is not there.

    """
    manifest = parse(Path(f"{originals[0].file.name} (as a manifest)"), text, sets)
    problems = Problems(list(manifest.problems))
    stages = bind_stages(manifest, plugins, problems)
    binders = [ParamsBinder(manifest, stage, problems) for stage in stages]
    items: dict[str, PipelineItem] = {}
    for original in originals:
        id_ = _id(original.file.stem, items)
        where = at(Position(str(original.file)))
        fields = [_parameters(stage, original.said.lineage[stage.name]) for stage in stages]
        # what is recorded as JSON, or was written in a table of strings, is not to be taken strictly
        own = [BatchItem(values, where, text_only=True, id=id_) for values in fields]
        bound = [binder.bind(item) for binder, item in zip(binders, own, strict=True)]
        items[id_] = PipelineItem(id_, tuple(bound), (), where)
    problems.check()
    return Pipeline(manifest, plugins, stages, tuple(items.values()))


def _from(record: StageRecord, records: Mapping[str, StageRecord], plugins: Plugins) -> Tables:
    """Where each input comes from. Texts that replace parameters are wired by their names."""
    stages = {other.key: name for name, other in reversed([*records.items()])}
    inputs = {needed.name for needed in plugins.stage(record.stage).inputs}
    wires = record.takes().items()
    return {name: f"{stages[key]}.{output}" for name, (key, output) in wires if name in inputs}


def _put(tables: Tables, stages: Sequence[Tables], name: str, values: Sequence[Tables]) -> None:
    """A table for each stage, or one for all where they are the same: ``--set`` reaches them at once then."""
    if values and all(value == values[0] for value in values):
        tables[name] = values[0]
        return
    for stage, value in zip(stages, values, strict=True):
        stage[name] = value


def _device(recorded: str) -> str:
    """The device of a budget for one as it was recorded: ``cpu AVX2``, or an accelerator's name."""
    return "cpu" if recorded.startswith("cpu ") else "cuda"


def _parameters(stage: PipelineStage, record: StageRecord) -> dict[str, Any]:
    """What was given, and what was a default then and is none now.

    A default need not be a value that the plugin's model takes.
    """
    defaults = canonical(stage.params.model_construct()) if stage.params else {}
    values = {**record.params, **record.as_written}
    return {n: value for n, value in values.items() if n not in defaults or defaults[n] != value}


def _id(stem: str, taken: Mapping[str, object]) -> str:
    usable = stem if re.fullmatch(FILE_NAME, stem) and len(stem) <= NAME_LIMIT else NAME
    return usable if usable not in taken else f"{NAME}-{len(taken)}"
