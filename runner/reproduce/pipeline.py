"""Makes a pipeline from the provenance records of outputs, to make them again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from runner.accelerator.discovery import accelerators
from runner.accelerator.names import CPU, CUDA
from runner.errors import UsageError
from runner.manifest.batch_item import BatchItem, at
from runner.manifest.input_files import file_parameters
from runner.manifest.load import parse
from runner.manifest.params import canonical
from runner.manifest.problems import Position, Problems
from runner.manifest.schema import FILE_NAME, NAME_LIMIT
from runner.pipeline.binding import Pipeline, PipelineItem, bind_stages
from runner.pipeline.params import ParamsBinder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from runner.pipeline.stage import PipelineStage
    from runner.plugins import Plugins
    from runner.reproduce.lineage import Provenance, StageRecord

NAME = "reproduce"
PARTS = "components"
"""Of the manifest and its run directory."""

Tables = dict[str, Any]


@dataclass(frozen=True)
class Original:
    """An output file and its provenance record."""

    file: Path
    provenance: Provenance


def manifest_of(provenance: Provenance, plugins: Plugins, model: str | None = None) -> str:
    """A manifest of the recorded stages; outputs with the same manifest can be made again in one run.

    It has the same kind of device and number of threads. ``model`` replaces the recorded sources.
    Parameters are left out: each original has its own.

    Raises:
        PluginError: no installed plugin has one of the stages.

    """
    records = provenance.in_order()
    stages: list[Tables] = []
    for name, record in records.items():
        stage: Tables = {"name": name, "uses": record.stage, "dtype": record.dtype}
        if record.save_dtype is not None:
            stage["save_dtype"] = record.save_dtype
        if record.quantize is not None:
            stage["quantize"] = record.quantize
        stages.append({**stage, "from": _from(record, records, plugins)})
    tables: Tables = {"version": 1, "name": NAME}
    loading = [(n, r.source) for n, r in enumerate(records.values()) if r.source]
    sources = _with_all_parts([source.at(model) if model else source.pinned for _, source in loading])
    if loras := _loras(records.values()):
        tables["lora"] = loras
        _put_adapted(tables, sources, [stages[n] for n, _ in loading], [bool(s.loras) for _, s in loading])
    else:
        _put(tables, [stages[n] for n, _ in loading], "model", sources)
    budgets = [{"device": _device(r.device), "threads": r.threads} for r in records.values()]
    _put(tables, stages, "budget", budgets)
    text: str = tomlkit.dumps({**tables, "stage": stages, "lora": tables.pop("lora", [])})
    return f"# The stages that `runner reproduce` ran; its items are the files given to it.\n{text}"


def pipeline_of(
    text: str, originals: Sequence[Original], plugins: Plugins, sets: Sequence[str] = ()
) -> Pipeline:
    """A pipeline with an item for each of the originals, in their order; ``text`` is their manifest.

    Relative folders start at the working directory.

    Raises:
        ManifestError: the stages or their parameters have changed since.
        UsageError: an override of ``sets`` is not valid.

    """
    manifest = parse(Path(f"{originals[0].file.name} (as a manifest)"), text, sets)
    problems = Problems(list(manifest.problems))
    stages = bind_stages(manifest, plugins, problems)
    binders = [ParamsBinder(manifest, stage, problems) for stage in stages]
    items: dict[str, PipelineItem] = {}
    for original in originals:
        id_ = _id(original.file.stem, items)
        where = at(Position(str(original.file)))
        lineage = original.provenance.lineage
        fields = [_parameters(stage, lineage[stage.name]) for stage in stages]
        # values come from JSON, or from strings: they are not validated strictly
        own = [BatchItem(values, where, text_only=True, id=id_) for values in fields]
        bound = [binder.bind(item) for binder, item in zip(binders, own, strict=True)]
        weights = {name: lora.weight for record in lineage.values() for name, lora in record.lora.items()}
        items[id_] = PipelineItem(id_, tuple(bound), (), where, weights)
    problems.check()
    return Pipeline(manifest, plugins, stages, tuple(items.values()))


def _from(record: StageRecord, records: Mapping[str, StageRecord], plugins: Plugins) -> Tables:
    """The ``from`` table: without texts that replace parameters, which are wired by their names."""
    stages = {other.key: name for name, other in reversed([*records.items()])}
    inputs = {needed.name for needed in plugins.stage(record.stage).inputs}
    wires = record.takes().items()
    return {name: f"{stages[key]}.{output}" for name, (key, output) in wires if name in inputs}


def _with_all_parts(sources: Sequence[Tables]) -> list[Tables]:
    """Sources of one model with the components from elsewhere of all of its stages: each records its own."""

    def own(source: Tables) -> Tables:
        return {name: value for name, value in source.items() if name != PARTS}

    found = []
    for source in sources:
        parts: Tables = {}
        for other in sources:
            if own(other) == own(source):
                parts |= other.get(PARTS, {})
        found.append({**own(source), **({PARTS: parts} if parts else {})})
    return found


def _loras(records: Iterable[StageRecord]) -> list[Tables]:
    """The ``[[lora]]`` tables of all adapters, in their order; the weights are those of each original."""
    found: dict[str, Tables] = {}
    before: dict[str, set[str]] = {}
    for record in records:
        sources = record.source.loras if record.source else {}
        names = sorted(record.lora.keys() & sources.keys(), key=lambda name: record.lora[name].place)
        for n, name in enumerate(names):  # a stage has only those that change it
            found.setdefault(name, {"source": sources[name].as_part, "name": name})
            before.setdefault(name, set()).update(names[:n])
    try:
        return [found[name] for name in TopologicalSorter(before).static_order()]
    except CycleError:
        raise UsageError(
            "its record has adapters in one order at a stage, and in another at the next"
        ) from None


def _put_adapted(
    tables: Tables, sources: Sequence[Tables], stages: Sequence[Tables], adapted: Sequence[bool]
) -> None:
    """Put the model into ``[model]``, which adapters change; a stage of another model has its own."""
    base = next(source for source, has in zip(sources, adapted, strict=True) if has)
    for source, stage in zip(sources, stages, strict=True):
        if source != base:
            stage["model"] = source
    tables["model"] = base


def _put(tables: Tables, stages: Sequence[Tables], name: str, values: Sequence[Tables]) -> None:
    """Put a table into each stage, or one for all if they are the same: then ``--set`` applies to all."""
    if values and all(value == values[0] for value in values):
        tables[name] = values[0]
        return
    for stage, value in zip(stages, values, strict=True):
        stage[name] = value


def _device(recorded: str) -> str:
    """The device for a budget from the recorded one: ``cpu AVX2``, or an accelerator's name."""
    if recorded.startswith("cpu "):
        return CPU
    here = accelerators()
    return here[0].kind if here else CUDA


def _parameters(stage: PipelineStage, record: StageRecord) -> dict[str, Any]:
    """The recorded parameters, without those that are the default now.

    A default need not be a value that the plugin's model accepts.
    """
    defaults = canonical(stage.params.model_construct()) if stage.params else {}
    files = file_parameters(stage.params)  # recorded by their contents; their paths are as written
    values = {**{n: value for n, value in record.params.items() if n not in files}, **record.as_written}
    return {n: value for n, value in values.items() if n not in defaults or defaults[n] != value}


def _id(stem: str, taken: Mapping[str, object]) -> str:
    usable = stem if re.fullmatch(FILE_NAME, stem) and len(stem) <= NAME_LIMIT else NAME
    return usable if usable not in taken else f"{NAME}-{len(taken)}"
