"""Which earlier output each input takes: the latest with its name, or the one that ``[stage.from]`` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.api import DTYPE_KINDS, Bundle, File, Output, Stage, Tensor, Text
from runner.manifest.problems import Position, Problems, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.manifest.load import Manifest
    from runner.manifest.schema import StageTable


@dataclass(frozen=True)
class Source:
    """The output that an input takes: the index of its stage in the manifest, and its name there."""

    stage: int
    output: str
    optional: bool = False
    """Whether the stage may leave it out for an item: then the item's own value counts."""


Wires = dict[str, Source]


def wire(
    manifest: Manifest, stages: Sequence[Stage | None], fields: Sequence[Sequence[str]], problems: Problems
) -> list[Wires]:
    """The wires of every stage, by input name.

    Besides declared inputs, a stage's parameter named like an earlier ``Text`` output is wired to it;
    ``fields`` are the parameters of each stage. An unknown stage is None: it could have any output.
    """
    wires: list[Wires] = []
    for n, (stage, table) in enumerate(zip(stages, manifest.table.stage, strict=True)):
        own: Wires = {}
        wires.append(own)
        if stage is None:
            continue
        for needed in stage.inputs:
            found = _source(manifest, stages, n, needed, problems)
            if found is not None:
                own[needed.name] = found
        for name in fields[n]:
            text = _latest(stages[:n], name)
            if text is not None and isinstance(_output(stages[text.stage], name), Text):
                own.setdefault(name, text)
        for renamed in table.from_:
            known = [i.name for i in stage.inputs]
            if renamed not in known:
                where = manifest.where("stage", n, "from", renamed, key=True)
                hint = did_you_mean(renamed, known)
                problems.add(where, f"{stage.name} has no input '{renamed}'{hint}")
    return wires


def _source(
    manifest: Manifest, stages: Sequence[Stage | None], n: int, needed: Output, problems: Problems
) -> Source | None:
    tables = manifest.table.stage
    table = tables[n]
    wanted = table.from_.get(needed.name, needed.name)
    where = manifest.where("stage", n)
    if needed.name in table.from_:
        where = manifest.where("stage", n, "from", needed.name)
    from_stage, dot, output = wanted.partition(".")
    if dot:
        found = _named(tables, stages, n, from_stage, output)
    else:
        output = wanted
        found = _latest(stages[:n], wanted)
    if found is None:
        if None not in stages[:n] and (not needed.optional or needed.name in table.from_):
            problems.add(where, _absent(tables, stages, n, needed.name, output))
        return None
    mismatch = _mismatch(_output(stages[found.stage], output), tables[found.stage], needed)
    if mismatch:
        start = f"stage '{tables[found.stage].name}' leaves '{output}'"
        problems.add(where, f"{start} {mismatch[0]}, and stage '{table.name}' needs {mismatch[1]}")
        return None
    return found


def _named(
    tables: Sequence[StageTable], stages: Sequence[Stage | None], n: int, stage: str, output: str
) -> Source | None:
    for earlier in range(n):
        offered = _output(stages[earlier], output)
        if tables[earlier].name == stage and offered:
            return Source(earlier, output, offered.optional)
    return None


def _latest(stages: Sequence[Stage | None], name: str) -> Source | None:
    found = [(n, offered) for n, stage in enumerate(stages) if (offered := _output(stage, name))]
    return Source(found[-1][0], name, found[-1][1].optional) if found else None


def _output(stage: Stage | None, name: str) -> Output | None:
    outputs = stage.outputs if stage else ()
    return next((output for output in outputs if output.name == name), None)


def _absent(
    tables: Sequence[StageTable], stages: Sequence[Stage | None], n: int, needed: str, output: str
) -> str:
    message = f"stage '{tables[n].name}' needs '{needed}', and no earlier stage leaves '{output}'"
    later = [t.name for t, s in zip(tables[n:], stages[n:], strict=True) if _output(s, output)]
    if later and later[0] != tables[n].name:
        return f"{message}: stage '{later[0]}' does, but it comes later; move it up"
    known = [o.name for stage in stages[:n] if stage for o in stage.outputs]
    hint = did_you_mean(output, known)
    if not hint and known:
        hint = f"; [stage.from] can rename: earlier stages leave {', '.join(dict.fromkeys(known))}"
    return message + hint


def _mismatch(offered: Output | None, table: StageTable, needed: Output) -> tuple[str, str] | None:
    """An output and the input that it does not fit, both in words; None if they fit."""
    if isinstance(offered, Tensor) and isinstance(needed, Tensor):
        stored = offered.dtype
        if table.save_dtype and (stored == "floating" or stored in DTYPE_KINDS["floating"]):
            stored = table.save_dtype
        if not _fits(stored, needed.dtype):
            return f"as {stored}", needed.dtype
        if offered.shape is None or needed.shape is None:
            return None
        if not _same_shape(offered.shape, needed.shape):
            return f"with shape {_shown(offered.shape)}", _shown(needed.shape)
        return None
    if type(offered) is not type(needed):
        return f"as {_kind(offered)}", _kind(needed)
    if not (isinstance(offered, File) and isinstance(needed, File)):
        return None
    # one that a parameter gives is checked for each item
    same = needed.suffix in ("", offered.suffix) or bool(offered.suffix_parameter)
    return None if same else (f"as a {offered.suffix} file", f"a {needed.suffix} file")


def _fits(stored: str, needed: str) -> bool:
    if "any" in (stored, needed):
        return True
    return bool({*DTYPE_KINDS.get(stored, (stored,))} & {*DTYPE_KINDS.get(needed, (needed,))})


def _same_shape(offered: tuple[int | str, ...], needed: tuple[int | str, ...]) -> bool:
    numbers = (int, int)
    return len(offered) == len(needed) and all(
        a == b for a, b in zip(offered, needed, strict=True) if (type(a), type(b)) == numbers
    )


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _kind(output: Output | None) -> str:
    kinds = {Tensor: "a tensor", Text: "a text", File: "a file", Bundle: "a bundle"}
    return kinds.get(type(output), "nothing")


def check_outputs(manifest: Manifest, stages: Sequence[Stage | None], problems: Problems) -> None:
    """Check that each stage has outputs, with different names."""
    for n, stage in enumerate(stages):
        if stage is None:
            continue
        names = [output.name for output in stage.outputs]
        where: Position = manifest.where("stage", n, "uses")
        if not names:
            problems.add(where, f"{stage.name} declares no outputs; its plugin is wrong")
        if len(set(names)) < len(names):
            problems.add(where, f"{stage.name} declares an output twice; its plugin is wrong")
