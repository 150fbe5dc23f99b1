"""Models that are one file: a whole checkpoint, as diffusers' ``from_single_file`` takes it.

diffusers knows which repository has the configs, the tokenizers and the scheduler of such a file. So the
model is that repository, and the file is the source of the components whose weights it holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.api import Component
from runner.errors import ModelError
from runner.files.header import tensors_to_json
from runner.manifest.schema import UNKNOWN
from runner.manifest.sources import check_source, is_hub_id, part_source
from runner.model.facts import component_names, facts_of
from runner.model.hub.headers import describe
from runner.model.layouts import answer
from runner.model.quantised import without_quantization
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

    Errors are added to ``problems``; nothing more is found out of such a model.
    """

    def opened(source: ModelSource | None, *path: str | int) -> ModelSource | None:
        if source is None:
            return None
        file = single_file(source)
        if file is None and source.config is None:
            return source
        where = manifest.where(*path, "source")
        if file is None:
            problems.add(where, "`config` is for a model that is one file of weights")
        elif check_source(file, manifest.folder):
            return source  # which others report
        elif source.revision is not None:
            problems.add(where, f'write "{file.source}@{source.revision}:{file.file}", and no `revision`')
        else:
            with problems.errors_at(where):
                return _opened(source, file, manifest, plugins)
        return source.model_copy(update={"source": UNKNOWN})

    table = manifest.table
    stages = [
        stage.model_copy(update={"model": opened(stage.model, "stage", n, "model")})
        for n, stage in enumerate(table.stage)
    ]
    update = {"model": opened(table.model, "model"), "stage": stages}
    return replace(manifest, table=table.model_copy(update=update))


def single_file(source: ModelSource) -> PartSource | None:
    """The file that a model is; None if it is a folder or a repository."""
    part = part_source(source.model_copy(update={"components": {WEIGHTS: source.source}}), WEIGHTS)
    return part if part is not None and part.file else None


def _opened(source: ModelSource, file: PartSource, manifest: Manifest, plugins: Plugins) -> ModelSource:
    """The repository of a model that is a file, with the file as the source of the components that it holds.

    Raises:
        ModelError: the file is missing or damaged, its configs cannot be had, or it holds none of their
            components.

    """
    tensors = _tensors(file, manifest, plugins)
    configs = source.config or _repository(source.source, tensors)
    model = source.model_copy(update={"source": configs, "config": None, "components": {}})
    try:
        facts = facts_of(model, manifest.folder, plugins, {})
    except ModelError as error:
        if source.config is not None:
            raise
        raise ModelError(
            f"the configs for {source.source} are those of '{configs}', as diffusers knows: {error}; or name "
            "a folder or a hub id that has them as `config`"
        ) from error
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
    found = answer({"checkpoint": tensors_to_json(tensors)}, f"{shown} cannot be loaded as a model")
    name = str(found["repository"])
    assert is_hub_id(name)  # noqa: S101 - diffusers' own table
    return name


def _held(source: ModelSource, tensors: Mapping[str, TensorInfo], facts: ModelFacts) -> list[str]:
    """The components that are loaded from the file, whose weights it must hold whole."""
    components: dict[str, Any] = {}
    for name in component_names(facts.index):
        library, cls = facts.index[name]
        if library in LIBRARIES and name in facts.configs and name not in source.components:
            components[name] = [f"{library}:{cls}", without_quantization(facts.configs[name])]
    found = answer(
        {"checkpoint": tensors_to_json(tensors), "components": components},
        f"{source.source} cannot be loaded as a model",
    )
    if not found["holds"]:
        raise ModelError(
            f"{source.source} holds no component of a {facts.pipeline}: {', '.join(components) or 'none'}"
        )
    return list(found["holds"])
