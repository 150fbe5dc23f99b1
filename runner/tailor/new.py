"""A manifest made from a template: the best quality that the hardware has room for."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode, ModelError, UsageError
from runner.manifest.patterns import FILE_NAME, NAME_LIMIT
from runner.manifest.problems import ManifestError
from runner.manifest.schema import ModelSource
from runner.manifest.sources import check_source, is_hub_id
from runner.pipeline.binding import bind
from runner.tailor.changes import Change, apply, reread
from runner.tailor.fit import Fitted, Shapes, fit, in_faster_dtypes, shapes_of
from runner.tailor.hardware import Hardware, budget_changes, completed
from runner.tailor.predictions import note_predictions
from runner.tailor.recommended import adapt
from runner.tailor.rewrite import remark
from runner.tailor.templates import choose, open_template
from runner.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Template
    from runner.machine.capacity import Machine
    from runner.manifest.load import Manifest
    from runner.pipeline.binding import Pipeline
    from runner.plan.choose import StagePlan
    from runner.plugins import Plugins

ACCESS = (
    "from the hub; where it is gated, accept its licence on its page, then `hf auth login` or set HF_TOKEN"
)


@dataclass(frozen=True)
class NewManifestRequest:
    """What the command line says; ``out`` is where the manifest will lie, None for stdout."""

    hardware: Hardware
    model: str | None = None
    template: str | None = None
    name: str | None = None
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return self.out.parent if self.out else Path()


@dataclass(frozen=True)
class NewManifest:
    """A new manifest, not written yet."""

    manifest: Manifest
    template: Template
    distribution: str
    plans: tuple[StagePlan, ...]
    lowered: tuple[Change, ...]
    """What was lowered from the template's quality."""
    notes: tuple[str, ...]


def make(wanted: NewManifestRequest, plugins: Plugins, machine: Machine) -> NewManifest:
    """Make a manifest for hardware that need not be this machine's.

    ``machine`` completes the hardware where a size or the device is not given.

    Raises:
        BudgetError: the model does not fit there, however low; the message has the arithmetic.
        ModelError: the model is missing, gated, damaged or out of reach.
        PluginError: there is no template for it, or it is broken.
        UsageError: the name, the model or the device is not written as one, or a size must be given.

    """
    model = _model(wanted)
    hardware, notes = completed(wanted.hardware, machine)
    plugin, template = choose(plugins, wanted.template, model, Path())
    opened = open_template(plugin, template, plugins)
    name = _name(wanted, template, hardware)
    path = wanted.out or Path(f"{name}.toml")
    source = _source(wanted, template)
    base = apply(replace(opened, path=path), _changes(opened, name, source, hardware))
    pipeline = bind(base, plugins)
    shapes = _shapes_of(pipeline)
    adapted = adapt(pipeline, template, shapes)
    fitted = in_faster_dtypes(fit(adapted.pipeline, shapes), shapes, plugins)
    text = _remarked(fitted)
    text = note_predictions(text, fitted.plans, add=True)
    text = _filled(text, {"manifest": shlex.quote(str(path)), **_header(fitted, hardware)})
    return NewManifest(
        manifest=reread(fitted.manifest, text),
        template=template,
        distribution=plugin.distribution,
        plans=fitted.plans,
        lowered=fitted.changes,
        notes=(*notes, *adapted.notes),
    )


def _model(wanted: NewManifestRequest) -> ModelSource | None:
    if wanted.model is None:
        return None
    if not wanted.model:
        raise UsageError("--model is empty")
    model = ModelSource(source=wanted.model, revision=None)
    wrong = check_source(model, Path())
    if wrong:
        raise UsageError(f"--model: {wrong}")
    return model


def _shapes_of(pipeline: Pipeline) -> Shapes:
    """The shapes of the model; what is wrong with it has no place in a manifest that is not written yet."""
    try:
        return shapes_of(pipeline)
    except ManifestError as error:
        if error.exit_code != ExitCode.MODEL:
            raise
        raise ModelError(error.messages) from None


def _source(wanted: NewManifestRequest, template: Template) -> str:
    """The model as the manifest names it: a relative folder starts from the manifest's own."""
    model = wanted.model or template.model
    if not model.startswith(".") or wanted.out is None:
        return model
    moved = Path(os.path.relpath(model, wanted.folder)).as_posix()
    return moved if moved.startswith(".") else f"./{moved}"


def _name(wanted: NewManifestRequest, template: Template, hardware: Hardware) -> str:
    name = wanted.name
    if name is None and wanted.out is not None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted.out.stem)
    elif name is None:
        size = f"{parse_size(hardware.vram) / (1 << 30):.4g}gb" if hardware.vram else "cpu"
        name = f"{template.name}-{size}"
    if not re.fullmatch(FILE_NAME, name) or len(name) > NAME_LIMIT:
        raise UsageError(f"the name '{name}' cannot be a folder's: give --name 1 to 100 of A-Z a-z 0-9 . _ -")
    return name


def _changes(opened: Manifest, name: str, source: str, hardware: Hardware) -> Iterator[Change]:
    table = opened.table
    yield Change(("name",), table.name, name)
    if source and (table.model is None or table.model.source != source):
        yield Change(("model", "source"), table.model and table.model.source, source)
        if table.model and table.model.revision:
            yield Change(("model", "revision"), table.model.revision, None)
    yield from budget_changes(opened, hardware)


def _remarked(fitted: Fitted) -> str:
    """The text with why a value is lower, in the place of what the template says of the one it has."""
    text = fitted.manifest.text
    for change in fitted.changes:
        if change.new is not None:
            text = remark(text, change.path, f"{change.old} {change.why}; this costs: {change.cost}")
    return text


def _header(fitted: Fitted, hardware: Hardware) -> Mapping[str, str]:
    """What is filled in at the top: the hardware, and how to come by the model."""
    on_hub = {
        (plan.stage.model.source, placed.component.path): placed.stored_bytes
        for plan in fitted.plans
        if plan.stage.model is not None and is_hub_id(plan.stage.model.source)
        for placed in plan.need.shapes
    }
    disk = f", {sum(on_hub.values()) / 1e9:.0f} GB of disk for the model" if on_hub else ""
    return {"hardware": f"{hardware.in_words}{disk}.", "access": ACCESS if on_hub else ""}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """The text with the comments before its first key filled in; a line for what is empty is left out."""
    lines = text.splitlines(keepends=True)
    head = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    filled = []
    for line in lines[:head]:
        names = [name for name in re.findall(r"\{(\w+)\}", line) if name in values]
        if all(values[name] for name in names):
            filled.append(re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), line))
    return "".join([*filled, *lines[head:]])
