"""Downloads the models of a pipeline that are not on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.manifest.sources import is_hub_id
from runner.model.hub.snapshots import is_altered
from runner.model.sources import fetch
from runner.pipeline.model_sources import where_source
from runner.work.loaded_shapes import errors_at
from runner.work.models import ResolvedModels, origins_of

if TYPE_CHECKING:
    from runner.manifest.schema import Source
    from runner.model.hub.snapshots import Listener
    from runner.model.sources import Model


def fetch_missing(resolved: ResolvedModels, listener: Listener, *, refresh: bool = False) -> ResolvedModels:
    """Download missing models and altered files; with ``refresh``, also newer commits of the revisions.

    Raises:
        ManifestError: a model is missing, gated or incomplete.
        StorageError: the disk is full.

    """
    pipeline = resolved.pipeline
    fetched: dict[Source, Model | None] = {}
    for stage, source in origins_of(pipeline):
        model = resolved.models.get(source)
        if source not in resolved.models or source in fetched or not is_hub_id(source.source):
            continue
        moves = refresh and (model is None or model.commit != source.revision)
        with errors_at(where_source(pipeline.manifest, stage.index, source)):
            if model is None or moves or is_altered(resolved.opened(stage, source)):
                fetched[source] = fetch(source, pipeline.components_of(source), listener)
    return ResolvedModels(pipeline, {**resolved.models, **fetched})
