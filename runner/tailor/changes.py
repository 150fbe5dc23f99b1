"""Changes of a manifest that save memory, in the order in which they are tried, and what each costs."""

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
"""Key in a parameter's ``json_schema_extra``: what its ``less_memory`` values cost, in words."""
NO_OUTPUT = "the placement is chosen anew; no output changes"


@dataclass(frozen=True)
class Change:
    """A new value in a manifest."""

    path: Path
    old: Any
    new: Any
    """None removes the value."""
    cost: str = ""
    stage: str = ""
    why: str = "does not fit"
    """What is wrong with the old value."""

    @property
    def key(self) -> str:
        """The path as ``--set`` has it: ``stage.decode.with.tiling``."""
        parts = [self.stage if isinstance(part, int) else part for part in self.path]
        return ".".join(parts)

    @property
    def changes_outputs(self) -> bool:
        """Whether outputs change: they get other keys, and are made anew."""
        return "with" in self.path or self.path[-1] == "dtype"


def apply(manifest: Manifest, changes: Iterable[Change]) -> Manifest:
    """The manifest with changes, as if its file had been edited and loaded again."""
    text = manifest.text
    for change in changes:
        text = drop(text, change.path) if change.new is None else put(text, change.path, change.new)
    return reread(manifest, text)


def reread(manifest: Manifest, text: str) -> Manifest:
    """The manifest with another text, which must be valid."""
    table = ManifestTable.model_validate(tomli.loads(text))
    return replace(manifest, text=text, table=table, positions=Positions(str(manifest.path), text))


def fallback_order(stage: PipelineStage) -> Iterator[Change]:
    """Changes that save memory in a stage, to be made one after another.

    First those that change no output, then the plugin's ``less_memory`` values, last the dtype.
    """
    at: Path = ("stage", stage.index)
    table, name = stage.table, stage.name
    if table.device_map is not None:
        yield Change((*at, "device_map"), "a device map", None, NO_OUTPUT, name)
    if table.placement != "auto":
        yield Change((*at, "placement"), table.placement, "auto", NO_OUTPUT, name)
    yield from _parameters(stage)
    if table.dtype == "float32":
        outputs = ", ".join(output.name for output in stage.spec.outputs if not output.optional)
        yield Change((*at, "dtype"), "float32", "bfloat16", f"other low bits in {outputs}", name)


def lowered(stage: PipelineStage) -> list[str]:
    """The settings of a stage that save memory, such as ``tiling = 256``."""
    table, written = stage.table, stage.given
    found = ["a device_map"] if table.device_map is not None else []
    found += [f'placement = "{table.placement}"'] if table.placement != "auto" else []
    return found + [f"{n} = {v!r}" for n, v in _values(stage) if n in written and written[n] == v]


def _parameters(stage: PipelineStage) -> Iterator[Change]:
    """A change for each ``less_memory`` value below the present one."""
    known = list(_values(stage))
    for name in dict.fromkeys(name for name, _ in known):
        values = [value for of, value in known if of == name]
        extra, default = _field(stage, name)
        current = stage.given.get(name, default)
        lower = values[values.index(current) + 1 :] if current in values else values
        for value in lower:
            cost = str(extra.get(COSTS, "another output"))
            yield Change(stage.path_of(name), current, value, cost, stage.name)


def _values(stage: PipelineStage) -> Iterator[tuple[str, Any]]:
    """Parameters by the names that users write, with their ``less_memory`` values."""
    for name, value in tunables(stage):
        field = stage.params.model_fields[name] if stage.params else None
        yield (field.alias if field and field.alias else name), value


def _field(stage: PipelineStage, written: str) -> tuple[dict[str, Any], Any]:
    """The ``json_schema_extra`` and the default of a parameter."""
    fields = stage.params.model_fields if stage.params else {}
    field = next(field for name, field in fields.items() if (field.alias or name) == written)
    extra = field.json_schema_extra
    default = None if field.is_required() else field.get_default()
    return (dict(extra) if isinstance(extra, dict) else {}), default
