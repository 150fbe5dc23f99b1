"""A manifest made from a template, in the best quality that fits the hardware."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode, ModelError, UsageError
from runner.manifest.problems import ManifestError
from runner.manifest.schema import FILE_NAME, NAME_LIMIT, ModelSource
from runner.manifest.sources import check_source, is_hub_id
from runner.model.parts import source_of
from runner.pipeline.binding import bind
from runner.tailor.changes import Change, apply, reread
from runner.tailor.fit import Fitted, Shapes, fit, in_faster_dtypes, shapes_of
from runner.tailor.hardware import Hardware, budget_changes, completed
from runner.tailor.predictions import note_predictions
from runner.tailor.recommended import Adapted, adapt
from runner.tailor.rewrite import remark
from runner.tailor.template_files import copied
from runner.tailor.templates import bind_template, choose, open_template
from runner.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from runner.api import Template
    from runner.machine.describe import Machine
    from runner.manifest.load import Manifest
    from runner.pipeline.binding import Pipeline
    from runner.plan.stage_plan import StagePlan
    from runner.plugins import Plugin, Plugins

ACCESS = (
    "from the hub; where it is gated, accept its licence on its page, then `hf auth login` or set HF_TOKEN"
)


@dataclass(frozen=True)
class NewManifestRequest:
    """The options of ``runner new``."""

    hardware: Hardware
    model: str | None = None
    template: str | None = None
    name: str | None = None
    out: Path | None = None
    """The manifest's path; None for stdout."""

    @property
    def folder(self) -> Path:
        return self.out.parent if self.out else Path()


@dataclass(frozen=True)
class NewManifest:
    """A new manifest that is not written yet."""

    manifest: Manifest
    template: Template
    distribution: str
    plans: tuple[StagePlan, ...]
    lowered: tuple[Change, ...]
    """Changes that lower the template's quality, so that it fits."""
    notes: tuple[str, ...]


def make(request: NewManifestRequest, plugins: Plugins, machine: Machine) -> NewManifest:
    """Make a manifest for hardware that need not be this machine's.

    Sizes that are not given are those of ``machine``.

    Raises:
        BudgetError: the model does not fit with any change; the message has the arithmetic.
        ModelError: the model is missing, gated or damaged, or cannot be reached.
        PluginError: there is no template for it, or it is broken.
        UsageError: the name, the model or the device is malformed, or a size must be given.

    """
    model = _model(request)
    hardware, notes = completed(request.hardware, machine)
    plugin, template = choose(plugins, request.template, model, Path())
    opened = open_template(plugin, template)
    name = _name(request, template, hardware)
    path = request.out or Path(f"{name}.toml")
    source = _source(request, template)
    base = apply(replace(opened, path=path), _changes(opened, name, source, hardware))
    adapted = adapt(base, plugin, template, plugins)
    with copied(plugin, template, adapted.manifest) as files:
        pipeline = _bound(plugin, template, adapted, plugins)
        shapes = _shapes_of(pipeline)
        fitted = in_faster_dtypes(fit(pipeline, shapes, machine), shapes, plugins, machine=machine)
        text = _remarked(fitted)
        text = note_predictions(text, fitted.plans, add=True)
        text = _filled(text, {"manifest": shlex.quote(str(path)), **_header(fitted, hardware)})
        return NewManifest(
            manifest=reread(fitted.manifest, text),
            template=template,
            distribution=plugin.distribution,
            plans=fitted.plans,
            lowered=fitted.changes,
            notes=(*notes, *adapted.notes, *(f"wrote {file}" for file in files)),
        )


def _model(request: NewManifestRequest) -> ModelSource | None:
    if request.model is None:
        return None
    if not request.model:
        raise UsageError("--model is empty")
    model = ModelSource(source=request.model, revision=None)
    wrong = check_source(model, Path())
    if wrong:
        raise UsageError(f"--model: {wrong}")
    return model


def _bound(plugin: Plugin, template: Template, adapted: Adapted, plugins: Plugins) -> Pipeline:
    """The pipeline of a template's manifest.

    Raises:
        PluginError: the template is not a valid manifest.
        ModelError: the model is missing, or recommends what its stages refuse.

    """
    if not adapted.follows_model:
        return bind_template(plugin, template, adapted.manifest, plugins)
    try:
        return bind(adapted.manifest, plugins)
    except ManifestError as error:
        if error.exit_code == ExitCode.MODEL:
            raise ModelError(error.messages) from None
        raise ModelError(f"what the model's own files recommend is refused:\n{error}") from None


def _shapes_of(pipeline: Pipeline) -> Shapes:
    """The shapes of the model; errors name no line, since the manifest is not written yet."""
    try:
        return shapes_of(pipeline)
    except ManifestError as error:
        if error.exit_code != ExitCode.MODEL:
            raise
        raise ModelError(error.messages) from None


def _source(request: NewManifestRequest, template: Template) -> str:
    """The model's source in the manifest: relative folders are relative to the manifest's folder."""
    model = request.model or template.model
    if not model.startswith(".") or request.out is None:
        return model
    moved = Path(os.path.relpath(model, request.folder)).as_posix()
    return moved if moved.startswith(".") else f"./{moved}"


def _name(request: NewManifestRequest, template: Template, hardware: Hardware) -> str:
    name = request.name
    if name is None and request.out is not None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", request.out.stem)
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
        for option in ("revision", "variant"):  # of the template's own model
            if table.model and (given := getattr(table.model, option)):
                yield Change(("model", option), given, None)
    yield from budget_changes(opened, hardware)


def _remarked(fitted: Fitted) -> str:
    """The text with the reason behind each changed value, in place of the template's comment."""
    text = fitted.manifest.text
    for change in fitted.changes:
        if change.new is not None:
            text = remark(text, change.path, f"{change.old} {change.why}; this costs: {change.cost}")
    return text


def _header(fitted: Fitted, hardware: Hardware) -> Mapping[str, str]:
    """Values of the header's placeholders: the hardware, and how to get access to the model."""
    on_hub = {
        (source.source, placed.component.path): placed.stored_bytes
        for plan in fitted.plans
        if plan.stage.model is not None
        for placed in plan.need.shapes
        if is_hub_id((source := source_of(plan.stage.model, placed.component)).source)
    }
    disk = f", {sum(on_hub.values()) / 1e9:.0f} GB of disk for the model" if on_hub else ""
    return {"hardware": f"{hardware.in_words}{disk}.", "access": ACCESS if on_hub else ""}


def _filled(text: str, values: Mapping[str, str]) -> str:
    """The text with placeholders in its first comments filled in; lines with empty values are left out."""
    lines = text.splitlines(keepends=True)
    head = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    filled = []
    for line in lines[:head]:
        names = [name for name in re.findall(r"\{(\w+)\}", line) if name in values]
        if all(values[name] for name in names):
            filled.append(re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[0]), line))
    return "".join([*filled, *lines[head:]])
