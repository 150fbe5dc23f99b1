"""Making outputs again from what they say of themselves, and holding the two against each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner.errors import BudgetError, ExitCode, ModelError
from runner.machine.devices import choose_device
from runner.manifest.problems import ManifestError
from runner.reproduce.compare import Comparison, compare
from runner.reproduce.lineage import read_lineage
from runner.supervisor.run import RunOptions, Supervisor
from runner.work.demand import output_paths
from runner.work.differences import (
    CIRCUMSTANCES,
    HASHES,
    INGREDIENTS,
    Difference,
    differences,
    parts,
    versions_here,
)
from runner.work.keys import keys_of
from runner.work.models import assemble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from runner.pipeline.binding import Pipeline
    from runner.reproduce.lineage import Provenance, StageRecord
    from runner.reproduce.pipeline import Original
    from runner.rundir.directory import RunDirectory
    from runner.rundir.journal import Events
    from runner.work.keys import Keyed

Differing = dict[str, list[Difference]]
"""What differs, by stage; stages where nothing does are left out."""


@dataclass(frozen=True)
class Reproduction:
    """What came of one original."""

    exit_code: ExitCode
    told: str
    output: Path | None = None
    """What was made; None if nothing could be."""
    unlike: Differing = field(default_factory=dict)
    """Parts of the keys that are others here: why nothing could be made."""
    circumstances: Differing = field(default_factory=dict)
    """Versions, devices and numbers of threads that are others here."""


def reproduce(
    originals: Sequence[Original], pipeline: Pipeline, directory: RunDirectory, events: Events
) -> list[Reproduction]:
    """Make in ``directory`` what can be made again, and compare. The pipeline has an item for each original.

    Raises:
        RunnerError: the device or the model is not here, or what else a run ends with.

    """
    _check_devices(originals[0].said, pipeline)
    unlike = _unlike(originals, pipeline)
    possible = [item for item, differing in zip(pipeline.items, unlike, strict=True) if not differing]
    if possible:
        Supervisor(replace(pipeline, items=tuple(possible)), directory, events, RunOptions()).run()
        unlike = _unlike(originals, pipeline)  # the model may have been fetched just now
    made = []
    for original, item, differing in zip(originals, pipeline.items, unlike, strict=True):
        output = _output(original.said, item.id, pipeline, directory)
        if differing:
            made.append(_refused(original.said, pipeline, differing))
        elif output is None:
            made.append(Reproduction(ExitCode.ITEMS_FAILED, "could not be made again"))
        else:
            made.append(_compared(original, output))
    return made


def _check_devices(said: Provenance, pipeline: Pipeline) -> None:
    for stage in pipeline.stages:
        try:
            choose_device(stage.budget)
        except BudgetError as error:
            made = said.lineage[stage.name].device
            hint = "--set budget.device=cpu makes it on the CPU, with other low bits"
            raise BudgetError(f"{error}; it was made on {made!r} ({hint})") from None


def _unlike(originals: Sequence[Original], pipeline: Pipeline) -> list[Differing]:
    """How each key would differ; of a model that is yet to be fetched, only what can be told without it."""
    try:
        assembly = assemble(pipeline)
    except ManifestError as error:
        if error.exit_code != ExitCode.MODEL:
            raise
        raise ModelError(f"{error.messages}; --model SOURCE names it where it is now") from None
    keys = assembly.keys()
    # the keys of inputs differ by what their stages differ by
    kinds = [kind for kind in INGREDIENTS if kind != "inputs" and (keys or kind not in HASHES)]

    def differing(said: Provenance, keyed: Sequence[Keyed]) -> Differing:
        here = {stage.name: keyed[stage.index].key_inputs for stage in pipeline.stages}
        return _differing(
            {
                name: differences(_parts(r, kinds), parts(here[name], kinds))
                for name, r in said.lineage.items()
            }
        )

    told = keys or keys_of(pipeline, [""] * len(pipeline.stages))
    return [differing(o.said, told[item.id]) for o, item in zip(originals, pipeline.items, strict=True)]


def _parts(record: StageRecord, kinds: Sequence[str]) -> dict[tuple[str, ...], str]:
    return parts(record.model_dump(), kinds)


def _differing(found: Mapping[str, list[Difference]]) -> Differing:
    return {stage: many for stage, many in found.items() if many}


def _output(said: Provenance, item: str, pipeline: Pipeline, directory: RunDirectory) -> Path | None:
    stage = next(stage for stage in pipeline.stages if stage.name == said.stage)
    path = output_paths(stage, directory, item, said.key).get(said.output)
    return path if path is not None and path.exists() else None


def _refused(said: Provenance, pipeline: Pipeline, unlike: Differing) -> Reproduction:
    """Nothing ran that could tell of devices: versions alone are told beside."""
    of_model = any(one.part == ("model",) for many in unlike.values() for one in many)
    versions = {
        name: differences(
            _parts(record, ["versions"]),
            versions_here(pipeline.plugins.distribution_of(record.stage)),
        )
        for name, record in said.lineage.items()
    }
    return Reproduction(
        ExitCode.MODEL if of_model else ExitCode.PLUGIN,
        "cannot be made again: what it was made from is not what is here",
        unlike=unlike,
        circumstances=_differing(versions),
    )


def _compared(original: Original, output: Path) -> Reproduction:
    new = output.read_bytes()
    if original.said.sha256 == hashlib.sha256(new).hexdigest():  # whatever became of the file since
        comparison = Comparison(same=True, told="bit for bit")
    else:
        comparison = compare(original.file.read_bytes(), new)
    here = read_lineage(output).lineage
    circumstances = {
        name: differences(_parts(record, CIRCUMSTANCES), _parts(here[name], CIRCUMSTANCES))
        for name, record in original.said.lineage.items()
    }
    return Reproduction(
        ExitCode.DONE if comparison.same else ExitCode.ITEMS_FAILED,
        f"made again{', ' if comparison.same else ', and it differs: '}{comparison.told}",
        output,
        circumstances=_differing(circumstances),
    )
