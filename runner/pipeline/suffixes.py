"""Suffixes of files that a parameter gives: ``File("picture", ".{format}")``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.api import File
from runner.manifest.explain import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from runner.api import Stage
    from runner.manifest.problems import Position, Problems
    from runner.pipeline.params import StageParams
    from runner.pipeline.stage import PipelineStage

_EXTENSION = re.compile(r"[a-z0-9]{1,16}")


def suffix_of(file: File, params: Mapping[str, Any]) -> str:
    """The suffix that a file has with these parameters of its stage, in canonical form."""
    return f".{params[file.suffix_parameter]}" if file.suffix_parameter else file.suffix


def with_suffixes(stage: Stage, params: Mapping[str, Any]) -> Stage:
    """The stage with the suffixes that its files have with these parameters, in canonical form."""
    outputs = [
        replace(output, suffix=suffix_of(output, params)) if isinstance(output, File) else output
        for output in stage.outputs
    ]
    return replace(stage, outputs=tuple(outputs))


def check_suffixes(
    stages: Iterable[PipelineStage],
    params: Sequence[StageParams],
    where: Callable[[PipelineStage, str], Position],
    problems: Problems,
) -> None:
    """Check that an item's parameters make suffixes, and those that later stages need.

    ``where`` finds the place where a parameter of a stage is set for the item.
    """
    before = len(problems.found)
    found = {stage.index: (stage, theirs.canonical) for stage, theirs in zip(stages, params, strict=True)}
    for stage, canonical in found.values():
        for name in stage.suffix_parameters:
            value = canonical.get(name, "")
            if name in canonical and not (isinstance(value, str) and _EXTENSION.fullmatch(value)):
                message = f"'{name}' is the extension of a file: 1 to 16 of a-z 0-9, not {shown(value)}"
                problems.add(where(stage, name), message)
    if len(problems.found) > before:
        return
    for reader, _ in found.values():
        for needed in reader.spec.inputs:
            wire = reader.wires.get(needed.name)
            if wire is None or wire.stage not in found:
                continue
            maker, canonical = found[wire.stage]
            offered = next(output for output in maker.spec.outputs if output.name == wire.output)
            if isinstance(offered, File) and isinstance(needed, File) and offered.suffix_parameter:
                made = suffix_of(offered, canonical)
                if needed.suffix not in ("", made):
                    leaves = f"stage '{maker.name}' leaves '{wire.output}' as a {made} file"
                    message = f"{leaves}, and stage '{reader.name}' needs a {needed.suffix} file"
                    problems.add(where(maker, offered.suffix_parameter), message)
