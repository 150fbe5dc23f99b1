"""Parameters that a model's own files recommend, put into a manifest made from a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.api import ModelFacts, Recommended
from runner.errors import ModelError, PluginError, in_words
from runner.manifest.problems import ManifestError
from runner.manifest.schema import ModelSource
from runner.pipeline.binding import bind
from runner.plugins import load_object
from runner.tailor.changes import Change, apply, reread
from runner.tailor.rewrite import remark
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.api import Template
    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path as KeyPath
    from runner.pipeline.binding import Pipeline
    from runner.tailor.fit import Shapes

CARD = "README.md"
CARD_LIMIT = 1 << 20  # bytes
REMARK = "as the model's own files say"


@dataclass(frozen=True)
class Adapted:
    """A pipeline with its model's recommendations, and a note for each changed value."""

    pipeline: Pipeline
    notes: tuple[str, ...]


def adapt(pipeline: Pipeline, template: Template, shapes: Shapes) -> Adapted:
    """Give a pipeline made from a template the parameters that its model recommends.

    Raises:
        ModelError: the stages refuse a recommended value.
        PluginError: the template's function fails.

    """
    if not template.recommend:
        return Adapted(pipeline, ())
    configs = {of.component.name: of.config for stage in shapes for of in stage}
    card, notes = _card(pipeline)
    changes = list(_changes(pipeline.manifest, _ask(template, ModelFacts(configs, card))))
    manifest = apply(pipeline.manifest, changes)
    text = manifest.text
    for change in changes:
        if change.new is not None and "with" in change.path:
            text = remark(text, change.path, REMARK)
    try:
        adapted = bind(reread(manifest, text), pipeline.plugins)
    except ManifestError as error:
        raise ModelError(f"what the model's own files recommend is refused:\n{error}") from None
    notes += [f"{_named(change, manifest)}: {REMARK}" for change in changes]
    return Adapted(adapted, tuple(notes))


def _ask(template: Template, facts: ModelFacts) -> Recommended:
    try:
        answer = load_object(template.recommend)(facts)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(f"{template.recommend} fails for this model: {in_words(error)}") from error
    if not isinstance(answer, Recommended):
        raise PluginError(f"{template.recommend} returned {answer!r}, which is no Recommended")
    return answer


def _changes(manifest: Manifest, recommended: Recommended) -> Iterator[Change]:
    table = manifest.table
    found: dict[KeyPath, Change] = {}
    for n, stage in enumerate(table.stage):
        for name, value in recommended.parameters.get(stage.name, {}).items():
            shared = name in table.with_ and name not in stage.with_
            path: KeyPath = ("with", name) if shared else ("stage", n, "with", name)
            old = table.parameters_of(stage).get(name)
            if old != value:
                found[path] = Change(path, old, value, stage=stage.name)
    yield from found.values()
    prompts, old_prompts = list(recommended.prompts), list(manifest.table.batch.prompts)
    if prompts and prompts != old_prompts:
        yield Change(("batch", "prompts"), old_prompts, prompts)


def _named(change: Change, manifest: Manifest) -> str:
    parts = [manifest.table.stage[part].name if isinstance(part, int) else part for part in change.path]
    if isinstance(change.new, list):
        return f"{'.'.join(parts)}, {len(change.new)} of them"
    return f"{'.'.join(parts)} {'removed' if change.new is None else f'= {change.new}'}"


def _card(pipeline: Pipeline) -> tuple[Mapping[str, Any], list[str]]:
    """The metadata of the model's card, and a note if it cannot be read; empty if there is no card here."""
    for source, model in resolve_models(pipeline).models.items():
        path = model.folder / CARD if model and isinstance(source, ModelSource) else None
        if path is not None and path.is_file() and path.stat().st_size <= CARD_LIMIT:
            return _metadata(path)
    return {}, []


def _metadata(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    from huggingface_hub import metadata_load

    try:
        return metadata_load(path) or {}, []
    except Exception as error:  # of its YAML parser and others
        first = str(error).partition("\n")[0]
        return {}, [f"the metadata of {path} is ignored, it cannot be read: {first}"]
