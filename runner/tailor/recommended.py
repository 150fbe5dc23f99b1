"""Parameters that a model's own files recommend, put into a manifest made from a template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from runner.api import ModelFacts, Recommended, UnsupportedModelError
from runner.errors import ModelError, PluginError, in_words
from runner.model.facts import facts_of
from runner.model.sources import find
from runner.plugins import load_object
from runner.tailor.changes import Change, apply, reread
from runner.tailor.rewrite import remark

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from runner.api import Template
    from runner.manifest.load import Manifest
    from runner.manifest.positions import Path as KeyPath
    from runner.manifest.schema import ModelSource
    from runner.plugins import Plugin, Plugins

CARD = "README.md"
CARD_LIMIT = 1 << 20  # bytes
REMARK = "as the model's own files say"
EXAMPLE = "an example: put your own in its place"


@dataclass(frozen=True)
class Adapted:
    """A manifest with its model's recommendations, and a note for each changed value."""

    manifest: Manifest
    notes: tuple[str, ...]
    follows_model: bool
    """Whether values are from the model's own files."""


def adapt(manifest: Manifest, plugin: Plugin, template: Template, plugins: Plugins) -> Adapted:
    """Give a manifest made from a template the parameters that its model recommends.

    Raises:
        ModelError: the template cannot be used for the model, whose index is missing or damaged perhaps.
        PluginError: the template's function fails.

    """
    model = manifest.table.model
    if not template.recommend or model is None:
        return Adapted(manifest, (), follows_model=False)
    card, notes = _card(model, manifest.folder, plugins)
    facts = replace(facts_of(model, manifest.folder, plugins, {}), card=card)
    changes = list(_changes(manifest, _ask(plugin, template, facts)))
    examples = [PurePath(file).name for file in template.files]
    reasons = {change.path: EXAMPLE if change.new in examples else REMARK for change in changes}
    notes += [f"{_named(change, manifest)}: {reasons[change.path]}" for change in changes]
    manifest = apply(manifest, changes)
    text = manifest.text
    for change in changes:
        if change.new is not None and "with" in change.path:
            text = remark(text, change.path, reasons[change.path])
    return Adapted(reread(manifest, text), tuple(notes), follows_model=REMARK in reasons.values())


def _ask(plugin: Plugin, template: Template, facts: ModelFacts) -> Recommended:
    try:
        answer = load_object(template.recommend)(facts)
    except PluginError:
        raise
    except UnsupportedModelError as error:
        raise ModelError(f"the stages of '{plugin.name}' cannot use this model: {error}") from None
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
    for name, value in recommended.shared.items():
        if (old := table.with_.get(name)) != value:
            found[("with", name)] = Change(("with", name), old, value)
    yield from found.values()
    prompts, old_prompts = list(recommended.prompts), list(manifest.table.batch.prompts)
    if prompts and prompts != old_prompts:
        yield Change(("batch", "prompts"), old_prompts, prompts)


def _named(change: Change, manifest: Manifest) -> str:
    parts = [manifest.table.stage[part].name if isinstance(part, int) else part for part in change.path]
    if isinstance(change.new, list):
        return f"{'.'.join(parts)}, {len(change.new)} of them"
    return f"{'.'.join(parts)} {'removed' if change.new is None else f'= {change.new}'}"


def _card(model: ModelSource, base: Path, plugins: Plugins) -> tuple[Mapping[str, Any], list[str]]:
    """The metadata of the model's card, and a note if it cannot be read; empty if there is no card here."""
    found = find(model, base, plugins, ())
    path = found.folder / CARD if found else None
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
