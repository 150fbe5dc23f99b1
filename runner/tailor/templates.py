"""Choosing a plugin's template for a model: by the pipeline class in its ``model_index.json``."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner.errors import ExitCode, ModelError, PluginError, UsageError
from runner.manifest.load import Manifest, load
from runner.manifest.problems import ManifestError, Problems, did_you_mean
from runner.manifest.sources import is_hub_id
from runner.model.hub.headers import model_index
from runner.model.selection import INDEX
from runner.model.sources import find
from runner.pipeline.binding import bind
from runner.pipeline.unknown_keys import check_unknown_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.api import Template
    from runner.manifest.schema import ModelSource
    from runner.pipeline.binding import Pipeline
    from runner.plugins import Plugin, Plugins

Offer = tuple["Plugin", "Template"]
ANY = "*"


def choose(plugins: Plugins, name: str | None, model: ModelSource | None, folder: Path) -> Offer:
    """The template with that name, or the one for that model, or the only one.

    A relative model folder is relative to ``folder``.

    Raises:
        PluginError: no plugin offers a template, or none for this model.
        UsageError: several match, or none has that name.
        ModelError: the model's index cannot be read, and there are several templates.

    """
    offers = plugins.templates()
    if not offers:
        raise PluginError("no installed plugin offers a template; `pip install runner-flux` brings FLUX")
    if name is not None:
        offers = [offer for offer in offers if offer[1].name == name]
        if not offers:
            known = sorted({template.name for _, template in plugins.templates()})
            hint = did_you_mean(name, known)
            raise UsageError(
                f"--template {name}: there is no such template{hint} (there are: {_list(known)})"
            )
    elif model is not None:
        offers = _serving(plugins, offers, model, folder)
    else:
        offers = _offered_by_default(offers) or offers
    if len(offers) > 1:
        what = "--template" if model is not None else "--model or --template"
        raise UsageError(f"several templates match, choose with {what}: {_titles(offers)}")
    return offers[0]


def open_template(plugin: Plugin, template: Template) -> Manifest:
    """The template as it is; its stages are checked when its model is known.

    Raises:
        PluginError: its file is missing, or its tables have errors.

    """
    with _broken(plugin, template):
        manifest = load(plugin.folder / template.path)
        problems = Problems(list(manifest.problems))
        check_unknown_keys(manifest, {}, problems)
        problems.check()
    return manifest


def bind_template(plugin: Plugin, template: Template, manifest: Manifest, plugins: Plugins) -> Pipeline:
    """The pipeline of a manifest made from a template, for its model.

    Raises:
        PluginError: the template is not a valid manifest.
        ModelError: the model is missing, or the template's stages cannot use it.

    """
    with _broken(plugin, template):
        return bind(manifest, plugins)


@contextmanager
def _broken(plugin: Plugin, template: Template) -> Iterator[None]:
    """Errors of a template are its plugin's, unless they are about the model."""
    try:
        yield
    except ManifestError as error:
        if error.exit_code == ExitCode.MODEL:
            raise ModelError(error.messages) from None
        owner = f"plugin '{plugin.name}' (from {plugin.distribution})"
        raise PluginError(f"the template '{template.name}' of {owner} is broken:\n{error}") from None


def _offered_by_default(offers: list[Offer]) -> list[Offer]:
    """The templates that are offered to those who name none."""
    return [offer for offer in offers if not offer[1].only_by_name]


def _serving(plugins: Plugins, offers: list[Offer], model: ModelSource, folder: Path) -> list[Offer]:
    try:
        pipeline = _class_name(plugins, model, folder)
    except ModelError:
        if len(by_default := _offered_by_default(offers)) == 1:
            return by_default
        raise
    serving = [offer for offer in offers if pipeline in offer[1].pipelines]
    serving = serving or [offer for offer in offers if ANY in offer[1].pipelines]
    if not serving:
        raise PluginError(
            f"model '{model.source}' is of class {pipeline}, and no installed plugin has a template for "
            f"that; there are: {_titles(offers)}"
        )
    return serving


def _class_name(plugins: Plugins, model: ModelSource, folder: Path) -> str:
    if is_hub_id(model.source):
        index: Any = model_index(model)
    else:
        found = find(model, folder, plugins, ())
        assert found is not None, "only a hub's model may be absent"  # noqa: S101
        try:
            index = json.loads((found.folder / INDEX).read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"model '{model.source}' has no {INDEX} that can be read: {error}") from None
    name = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(name, str):
        raise ModelError(f"the {INDEX} of model '{model.source}' names no pipeline (_class_name)")
    return name


def _titles(offers: Sequence[Offer]) -> str:
    return _list(
        f"{template.name} ({' or '.join(template.pipelines)}, from {plugin.distribution})"
        for plugin, template in offers
    )


def _list(names: Any) -> str:
    return ", ".join(names)
