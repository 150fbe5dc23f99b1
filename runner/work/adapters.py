"""The adapters (LoRA) of a pipeline: what they are tried on, and which stages they change."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runner.model.checks.adapters import AdapterCheck, Recipient, Recipients
from runner.model.checks.alphas import check_alphas
from runner.model.checks.formats import LIBRARIES
from runner.model.fingerprint import content_of
from runner.model.hub.headers import header_of
from runner.pipeline.model_sources import where_source
from runner.work.loaded_shapes import errors_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from runner.files.header import Header
    from runner.manifest.loras import Lora
    from runner.manifest.schema import LoraSource, Source
    from runner.model.checks.adapters import AdapterReport
    from runner.model.files import ComponentFiles
    from runner.model.shapes import ComponentShapes
    from runner.model.sources import ComposedModel, Model
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage


@dataclass
class Adapters:
    """The adapters of a pipeline. The functions may raise ManifestErrors: headers are read with them."""

    pipeline: Pipeline
    models: Mapping[Source, Model | None]
    """Among them the adapters' files; None for one on the hub that is not downloaded."""
    shapes: Callable[[PipelineStage], Iterable[ComponentShapes]]
    """Of a stage's components."""
    index: Callable[[PipelineStage], Mapping[str, Any]]
    """The index of a stage's model."""
    opened: Callable[[PipelineStage, Source], Sequence[ComponentFiles]]
    """The files that a stage loads from a source that is here."""
    _checks: dict[Lora, AdapterCheck] = field(default_factory=dict)
    _reports: dict[str, AdapterReport] = field(default_factory=dict)

    @property
    def checks(self) -> Mapping[Lora, AdapterCheck]:
        """The check of each adapter against the components of the stages that it may change."""
        adapted = self._adapted
        if adapted and not self._checks:
            recipients = self._recipients(adapted)
            for lora in adapted[0].loras:
                shown = f"the LoRA '{lora.name}'"
                header = self._header(adapted[0], lora.source, shown)
                self._checks[lora] = AdapterCheck(shown, header, recipients)
        return self._checks

    def of(self, stage: PipelineStage) -> dict[Lora, AdapterReport] | None:
        """The adapters that change components of a stage, in order; None if one was not tried yet."""
        if not (stage.loras and stage.components):
            return {}
        loaded = {component.name for component in stage.components if not component.config_only}
        found: dict[Lora, AdapterReport] = {}
        for lora, check in self.checks.items():
            report = self._report(check)
            if report is None:
                return None
            if loaded & report.layers.keys():
                found[lora] = report
        return found

    def reported(self, stage: PipelineStage, shapes: Sequence[ComponentShapes]) -> list[ComponentShapes]:
        """The shapes of a stage's components, each with the reports of the adapters that change it."""
        reports = [*(self.of(stage) or {}).values()]
        if not reports:
            return [*shapes]
        return [
            replace(one, adapters=tuple(report for report in reports if one.component.name in report.layers))
            for one in shapes
        ]

    def added(self, stage: PipelineStage, model: ComposedModel | None) -> ComposedModel | None:
        """The model of a stage with the files of the adapters that change it."""
        found = {lora: self.models.get(lora.source) for lora in self.of(stage) or ()}
        loras = {lora: file for lora, file in found.items() if file is not None}
        return replace(model, loras=loras, recipients=self._tried_on) if model and loras else model

    def prints(self, stage: PipelineStage, *, hash_missing: bool) -> dict[str, str] | None:
        """The content hashes of the adapters that change a stage, by name; None if they are not known."""
        adapters = self.of(stage)
        found: dict[str, str] = {}
        for lora in adapters or ():
            (files,) = self.opened(stage, lora.source)
            with self._errors_at(stage, lora.source):
                content = content_of(files, hash_missing=hash_missing)
            if content is None:
                return None
            found[lora.name] = content
        return None if adapters is None else found

    @property
    def _tried_on(self) -> Recipients:
        """The components that adapters may change, wherever they are loaded."""
        return next(iter(self.checks.values())).recipients

    @property
    def _adapted(self) -> list[PipelineStage]:
        return [stage for stage in self.pipeline.stages if stage.loras and stage.components]

    def _header(self, stage: PipelineStage, source: LoraSource, shown: str) -> Header:
        if self.models.get(source) is not None:
            (files,) = self.opened(stage, source)
            ((name, header),) = files.headers.items()
            with self._errors_at(stage, source):
                check_alphas(files.folder / name, header, shown)
            return header
        (component,) = stage.origins[source]
        with self._errors_at(stage, source):
            return header_of(source, component)

    def _errors_at(self, stage: PipelineStage, source: LoraSource) -> AbstractContextManager[None]:
        return errors_at(where_source(self.pipeline.manifest, stage.index, source))

    def _recipients(self, adapted: Sequence[PipelineStage]) -> Recipients:
        components = {
            shapes.component.name: Recipient(shapes.component.cls, shapes.config)
            for stage in adapted
            for shapes in self.shapes(stage)
            if shapes.tensors and not shapes.component.config_only and _is_of_a_library(shapes)
        }
        own = adapted[0].model.pipeline if adapted[0].model else None
        pipeline = own or self.index(adapted[0]).get("_class_name")
        return Recipients(pipeline if isinstance(pipeline, str) else "", components)

    def _report(self, check: AdapterCheck) -> AdapterReport | None:
        """The report from the cache, which is asked again as long as there is none."""
        if check.digest not in self._reports and (report := check.report) is not None:
            self._reports[check.digest] = report
        return self._reports.get(check.digest)


def _is_of_a_library(shapes: ComponentShapes) -> bool:
    return shapes.component.cls.partition(":")[0].partition(".")[0] in LIBRARIES
