"""Makes outputs again from their provenance records, and compares the two."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.errors import BudgetError, ExitCode, ModelError
from runner.manifest.problems import ManifestError
from runner.reproduce.compare import Comparison, compare
from runner.reproduce.lineage import read_lineage
from runner.supervisor.run import RunOptions, Supervisor
from runner.work.differences import (
    ENVIRONMENT,
    HASHES,
    KEY_INPUTS,
    Difference,
    Parts,
    differences,
    parts,
    versions_here,
)
from runner.work.keys import keys_of
from runner.work.models import resolve_models
from runner.work.work import output_paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.reproduce.lineage import Provenance, StageRecord
    from runner.reproduce.pipeline import Original
    from runner.rundir.directory import RunDirectory
    from runner.rundir.journal import Events
    from runner.supervisor.run import RunListener
    from runner.work.keys import Keyed

Differing = dict[str, list[Difference]]
"""What differs, by stage; stages without differences are left out."""


@dataclass(frozen=True)
class Reproduction:
    """The result of making one original again."""

    exit_code: ExitCode
    message: str
    output: Path | None = None
    """The new file; None if it could not be made."""
    key_mismatches: Differing = field(default_factory=dict)
    """Parts of the keys that differ here: why nothing could be made."""
    environment: Differing = field(default_factory=dict)
    """Versions, devices and thread counts that differ here."""


def reproduce(
    originals: Sequence[Original],
    pipeline: Pipeline,
    directory: RunDirectory,
    events: Events,
    listeners: Sequence[Callable[[RunDirectory], RunListener]] = (),
) -> list[Reproduction]:
    """Make the originals again in ``directory`` and compare. The pipeline has an item for each original.

    Raises:
        RunnerError: the device or the model is not here, or the run stopped.

    """
    _check_devices(originals[0].provenance, pipeline)
    mismatches = _key_mismatches(originals, pipeline)
    possible = [item for item, found in zip(pipeline.items, mismatches, strict=True) if not found]
    if possible:
        makeable = replace(pipeline, items=tuple(possible))
        Supervisor(makeable, directory, events, RunOptions(), listeners=listeners).run()
        mismatches = _key_mismatches(originals, pipeline)  # the run may have fetched the model
    results = []
    for original, item, found in zip(originals, pipeline.items, mismatches, strict=True):
        output = _output(original.provenance, item.id, pipeline, directory)
        if found:
            results.append(_refused(original.provenance, pipeline, found))
        elif output is None:
            results.append(Reproduction(ExitCode.ITEMS_FAILED, "could not be made again"))
        else:
            results.append(_compared(original, output))
    return results


def _check_devices(provenance: Provenance, pipeline: Pipeline) -> None:
    """Check that this machine has each stage's device; the error names the device in the record."""
    for stage in pipeline.stages:
        try:
            _ = stage.device
        except BudgetError as error:
            recorded = provenance.lineage[stage.name].device
            hint = "--set budget.device=cpu makes it on the CPU, with other low bits"
            raise BudgetError(f"{error}; it was made on {recorded!r} ({hint})") from None


def _key_mismatches(originals: Sequence[Original], pipeline: Pipeline) -> list[Differing]:
    """How each original's keys differ from those here; without hashes while a model is not here."""
    try:
        resolved = resolve_models(pipeline)
    except ManifestError as error:
        if error.exit_code != ExitCode.MODEL:
            raise
        raise ModelError(
            f"{error.messages}; --model SOURCE names it where it is now{_of_parts(pipeline)}"
        ) from None
    keys = resolved.keys()
    # keys of inputs differ only if their stages' own parts do
    kinds = [kind for kind in KEY_INPUTS if kind != "inputs" and (keys or kind not in HASHES)]
    keys = keys or keys_of(pipeline)

    def mismatches(provenance: Provenance, keyed: Sequence[Keyed]) -> Differing:
        here = {stage.name: keyed[stage.index].key_inputs for stage in pipeline.stages}
        return _differing(
            {
                name: differences(_parts(record, kinds), parts(here[name], kinds))
                for name, record in provenance.lineage.items()
            }
        )

    return [
        mismatches(o.provenance, keys[item.id]) for o, item in zip(originals, pipeline.items, strict=True)
    ]


def _of_parts(pipeline: Pipeline) -> str:
    """The options that name components and adapters that were moved, if there are any."""
    more = ""
    if any(stage.model and stage.model.components for stage in pipeline.stages):
        more += ", a component --set model.components.NAME=SOURCE"
    if any(stage.loras for stage in pipeline.stages):
        more += ", a LoRA --set lora.NAME.source=FILE"
    return more


def _parts(record: StageRecord, kinds: Sequence[str]) -> Parts:
    return parts(record.model_dump(), kinds)


def _differing(found: Mapping[str, list[Difference]]) -> Differing:
    return {stage: many for stage, many in found.items() if many}


def _output(provenance: Provenance, item: str, pipeline: Pipeline, directory: RunDirectory) -> Path | None:
    stage = next(stage for stage in pipeline.stages if stage.name == provenance.stage)
    params = provenance.lineage[stage.name].params
    path = output_paths(stage, directory, item, provenance.key, params).get(provenance.output)
    return path if path is not None and path.exists() else None


def _refused(provenance: Provenance, pipeline: Pipeline, mismatches: Differing) -> Reproduction:
    """Of the environment only versions are compared: no worker ran that could report its device."""
    of_model = any(one.part[0] in ("model", "lora") for many in mismatches.values() for one in many)
    versions = {
        name: differences(
            _parts(record, ["versions"]),
            versions_here(pipeline.plugins.distribution_of(record.stage)),
        )
        for name, record in provenance.lineage.items()
    }
    return Reproduction(
        ExitCode.MODEL if of_model else ExitCode.PLUGIN,
        "cannot be made again: what it was made from is not what is here",
        key_mismatches=mismatches,
        environment=_differing(versions),
    )


def _compared(original: Original, output: Path) -> Reproduction:
    new = output.read_bytes()
    if original.provenance.sha256 == hashlib.sha256(new).hexdigest():  # the original may have changed since
        comparison = Comparison(same=True, message="bit for bit")
    else:
        comparison = compare(original.file.read_bytes(), new)
    here = read_lineage(output).lineage
    environment = {
        name: differences(_parts(record, ENVIRONMENT), _parts(here[name], ENVIRONMENT))
        for name, record in original.provenance.lineage.items()
    }
    return Reproduction(
        ExitCode.DONE if comparison.same else ExitCode.ITEMS_FAILED,
        f"made again{', ' if comparison.same else ', and it differs: '}{comparison.message}",
        output,
        environment=_differing(environment),
    )
