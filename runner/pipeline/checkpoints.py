"""Models that are one file: a whole checkpoint, as diffusers' ``from_single_file`` takes it.

diffusers knows which repository has the configs, the tokenizers and the scheduler of such a file. So the
model is that repository, and the file is the source of the components whose weights it holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.api import Component
from runner.errors import ModelError
from runner.manifest.sources import check_source, is_hub_id, part_source
from runner.model.facts import component_names, facts_of
from runner.model.hub.headers import describe
from runner.model.layouts import answer
from runner.model.sources import find

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.api import ModelFacts
    from runner.files.header import TensorInfo
    from runner.manifest.load import Manifest
    from runner.manifest.problems import Problems
    from runner.manifest.schema import ModelSource, PartSource
    from runner.plugins import Plugins

LIBRARIES = ("diffusers", "transformers")
WEIGHTS = "weights"
"""The name of the file as a component, in messages."""


def with_checkpoints(manifest: Manifest, plugins: Plugins, problems: Problems) -> Manifest:
    """The manifest with the models that are one file replaced by their repository and the file's components.

    Errors are added to ``problems``; such a model is left as it is.
    """
    table = manifest.table
    with problems.errors_at(manifest.where("model", "source")):
        if table.model is not None:
            table = table.model_copy(update={"model": _opened(table.model, manifest, plugins)})
    stages = list(table.stage)
    for n, stage in enumerate(stages):
        if stage.model is not None:
            with problems.errors_at(manifest.where("stage", n, "model", "source")):
                stages[n] = stage.model_copy(update={"model": _opened(stage.model, manifest, plugins)})
    return replace(manifest, table=table.model_copy(update={"stage": stages}))


def single_file(source: ModelSource) -> PartSource | None:
    """The file that a model is; None if it is a folder or a repository."""
    part = part_source(source.model_copy(update={"components": {WEIGHTS: source.source}}), WEIGHTS)
    return part if part is not None and part.file else None


def _opened(source: ModelSource, manifest: Manifest, plugins: Plugins) -> ModelSource:
    """The model that a source means: itself, or the repository of a file.

    Raises:
        ModelError: the file is missing or damaged, or diffusers does not know what it is of.

    """
    file = single_file(source)
    if file is None or check_source(file, manifest.folder):
        if source.config is not None:
            raise ModelError("`config` is for a model that is one file of weights")
        return source
    if source.revision is not None:
        raise ModelError(f'write "{file.source}@{source.revision}:{file.file}", and no `revision`')
    tensors = _tensors(file, manifest, plugins)
    configs = source.config or _repository(source.source, tensors)
    model = source.model_copy(update={"source": configs, "config": None, "components": {}})
    facts = facts_of(model, manifest.folder, plugins, {})
    held = _held(source, tensors, facts)
    components = {**dict.fromkeys(held, source.source), **source.components}
    return model.model_copy(update={"components": components}).of_checkpoint(source.source)


def _tensors(file: PartSource, manifest: Manifest, plugins: Plugins) -> Mapping[str, TensorInfo]:
    """The tensors in the header of a file, which may be on the hub."""
    component = Component(WEIGHTS, "")
    found = find(file, manifest.folder, plugins, [component])
    if found is not None:
        return found.component(component).stored_shapes.tensors
    return describe(file, [component])[WEIGHTS].tensors


def _repository(shown: str, tensors: Mapping[str, TensorInfo]) -> str:
    """The repository that diffusers takes the configs of such a file from."""
    found = answer({"checkpoint": _described(tensors)}, f"{shown} cannot be loaded as a model")
    name = str(found["repository"])
    assert is_hub_id(name)  # noqa: S101 - diffusers' own table
    return name


def _held(source: ModelSource, tensors: Mapping[str, TensorInfo], facts: ModelFacts) -> list[str]:
    """The components that are loaded from the file, whose weights it must hold whole."""
    components: dict[str, Any] = {}
    for name in component_names(facts.index):
        library, cls = facts.index[name]
        if library in LIBRARIES and name in facts.configs and name not in source.components:
            components[name] = [f"{library}:{cls}", dict(facts.configs[name])]
    found = answer(
        {"checkpoint": _described(tensors), "components": components},
        f"{source.source} cannot be loaded as a model",
    )
    if not found["holds"]:
        raise ModelError(
            f"{source.source} holds no component of a {facts.pipeline}: {', '.join(components) or 'none'}"
        )
    return list(found["holds"])


def _described(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {n: [i.dtype, list(i.shape), [i.start, i.end]] for n, i in tensors.items()}
