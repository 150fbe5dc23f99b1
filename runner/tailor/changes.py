"""What of a manifest can be changed for less memory, in which order, and what each change costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli

from runner.manifest.positions import Positions
from runner.manifest.schema import ManifestTable
from runner.plan.remedies import LESS_MEMORY, tunables
from runner.tailor.rewrite import drop, put

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path
    from runner.pipeline.stage import PipelineStage

COSTS = f"{LESS_MEMORY}_costs"
"""A parameter's ``json_schema_extra`` key: what its ``less_memory`` values cost, in words."""
NO_PICTURE = "where weights live is chosen anew; no output changes"


@dataclass(frozen=True)
class Change:
    """A value of a manifest that becomes another; ``new`` is None where it is taken out."""

    path: Path
    old: Any
    new: Any
    cost: str = ""
    stage: str = ""
    why: str = "does not fit"
    """What is wrong with the old value."""

    @property
    def key(self) -> str:
        """As ``--set`` names it: ``stage.decode.with.tiling``."""
        parts = [self.stage if isinstance(part, int) else part for part in self.path]
        return ".".join(parts)

    @property
    def is_numeric(self) -> bool:
        """Whether it changes numbers: then outputs have other keys, and are made anew."""
        return "with" in self.path or self.path[-1] == "dtype"


def apply(manifest: Manifest, changes: Iterable[Change]) -> Manifest:
    """The manifest with changes, as if its file had been edited and read again."""
    text = manifest.text
    for change in changes:
        text = drop(text, change.path) if change.new is None else put(text, change.path, change.new)
    return reread(manifest, text)


def reread(manifest: Manifest, text: str) -> Manifest:
    """The manifest with another text, which is known to be a right one."""
    table = ManifestTable.model_validate(tomli.loads(text))
    return replace(manifest, text=text, table=table, positions=Positions(str(manifest.path), text))


def fallback_order(stage: PipelineStage) -> Iterator[Change]:
    """Changes that a stage may take less memory with, to be made one after another.

    First what changes no output, then what the plugin names, the mildest first, and last the dtype.
    """
    at: Path = ("stage", stage.index)
    table, name = stage.table, stage.name
    if table.device_map is not None:
        yield Change((*at, "device_map"), "a map of one's own", None, NO_PICTURE, name)
    if table.placement != "auto":
        yield Change((*at, "placement"), table.placement, "auto", NO_PICTURE, name)
    yield from _parameters(stage)
    if table.dtype == "float32":
        outputs = ", ".join(output.name for output in stage.spec.outputs if not output.optional)
        yield Change((*at, "dtype"), "float32", "bfloat16", f"other low bits in {outputs}", name)


def lowered(stage: PipelineStage) -> list[str]:
    """What a stage has been set to for less memory, as far as that can be told: ``tiling = 256``."""
    table = stage.table
    found = ["a device_map"] if table.device_map is not None else []
    found += [f'placement = "{table.placement}"'] if table.placement != "auto" else []
    written = table.with_
    return found + [f"{n} = {v!r}" for n, v in _values(stage) if n in written and written[n] == v]


def _parameters(stage: PipelineStage) -> Iterator[Change]:
    """A change for each value that is lower than the one that counts now."""
    known = list(_values(stage))
    for name in dict.fromkeys(name for name, _ in known):
        values = [value for of, value in known if of == name]
        extra, default = _field(stage, name)
        current = stage.table.with_.get(name, default)
        lower = values[values.index(current) + 1 :] if current in values else values
        for value in lower:
            path: Path = ("stage", stage.index, "with", name)
            yield Change(path, current, value, str(extra.get(COSTS, "another output")), stage.name)


def _values(stage: PipelineStage) -> Iterator[tuple[str, Any]]:
    """Parameters, by the names that users write, with their values for less memory."""
    for name, value in tunables(stage):
        field = stage.params.model_fields[name] if stage.params else None
        yield (field.alias if field and field.alias else name), value


def _field(stage: PipelineStage, written: str) -> tuple[dict[str, Any], Any]:
    """What the plugin says of a parameter beside its type, and its default."""
    fields = stage.params.model_fields if stage.params else {}
    field = next(field for name, field in fields.items() if (field.alias or name) == written)
    extra = field.json_schema_extra
    default = None if field.is_required() else field.get_default()
    return (dict(extra) if isinstance(extra, dict) else {}), default
