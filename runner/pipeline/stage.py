"""A stage of the manifest together with the plugin's stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from runner.accelerator.discovery import choose_device
from runner.api import Bundle, File, Stage, Tensor, Text
from runner.manifest.schema import LoraSource
from runner.model.parts import file_of, lora_file, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from pydantic import BaseModel

    from runner.api import Component, ModelFacts
    from runner.manifest.loras import Lora
    from runner.manifest.positions import Path
    from runner.manifest.schema import Budget, ModelSource, Source, StageTable
    from runner.pipeline.wiring import Wires


@dataclass(frozen=True)
class PipelineStage:
    """A stage of the manifest (``table``) with the plugin's stage (``spec``), for its model."""

    index: int
    table: StageTable
    spec: Stage
    params: type[BaseModel] | None
    given: Mapping[str, Any]
    """Its parameters from ``[with]`` and ``[stage.with]``, which items override."""
    wires: Wires
    budget: Budget
    model: ModelSource | None
    consumed: frozenset[str]
    """Names of the outputs that later stages take."""
    facts: ModelFacts | None = None
    """Of the model, if the stage's components or parameters depend on it."""
    loras: tuple[Lora, ...] = ()
    """The manifest's adapters, if they are for the stage's model."""

    @property
    def name(self) -> str:
        return self.table.name

    def path_of(self, parameter: str) -> Path:
        """Where the manifest sets a parameter: ``[with]`` if only that has it, else ``[stage.with]``."""
        shared = parameter in self.given and parameter not in self.table.with_
        return ("with", parameter) if shared else ("stage", self.index, "with", parameter)

    @cached_property
    def device(self) -> str:
        """The torch device that it runs on, chosen once by its budget.

        Raises:
            BudgetError: this machine has no such device.

        """
        return choose_device(self.budget.device, vram=self.budget.vram)

    @cached_property
    def sources(self) -> set[int]:
        """Indices of the stages that it takes inputs from."""
        return {source.stage for source in self.wires.values()}

    @property
    def components(self) -> tuple[Component, ...]:
        """What it loads of its model."""
        components = self.spec.components
        assert not isinstance(components, str), "the pipeline has the stage for its model"  # noqa: S101
        return components

    @cached_property
    def origins(self) -> Mapping[Source, Sequence[Component]]:
        """Its components, and the files of its adapters, by where they are loaded from.

        The model is among them even if every component is from elsewhere: its index is read. A component
        whose weights are a single file has its config from the model.
        """
        if self.model is None or not self.components:
            return {}
        found: dict[Source, list[Component]] = {self.model: []}
        for component in self.components:
            source = source_of(self.model, component)
            found.setdefault(source, []).append(component)
            if file_of(source):
                found[self.model].append(replace(component, config_only=True, buffers=()))
        for lora in self.loras:
            found.setdefault(lora.source, [lora_file(lora.source, lora.name)])  # two may have one file
        return found

    @property
    def model_sources(self) -> list[Source]:
        """Where its components are loaded from: without the adapters' files."""
        return [source for source in self.origins if not isinstance(source, LoraSource)]

    @property
    def quantize(self) -> Mapping[str, str]:
        """The schemes that ``quantize`` gives, by component."""
        given = self.table.quantize
        if isinstance(given, str):
            return {c.name: given for c in self.components if not c.config_only}
        return given or {}

    @property
    def is_terminal(self) -> bool:
        """Whether no other stage takes any of its outputs."""
        return not self.consumed

    @cached_property
    def files(self) -> tuple[File, ...]:
        """The outputs that are files: ``File`` outputs and, of a terminal stage, texts.

        :func:`runner.pipeline.suffixes.suffix_of` gives their suffixes for an item.
        """
        files = [output for output in self.spec.outputs if isinstance(output, File)]
        if self.is_terminal:
            texts = [output for output in self.spec.outputs if isinstance(output, Text)]
            files += [File(text.name, ".txt", text.optional) for text in texts]
        return tuple(files)

    @cached_property
    def suffix_parameters(self) -> tuple[str, ...]:
        """The parameters whose values are extensions of files."""
        return tuple(file.suffix_parameter for file in self.files if file.suffix_parameter)

    @cached_property
    def leaves_handoff(self) -> bool:
        """Whether it writes a hand-off: for later stages, for tensors, or if all its files are optional."""
        tensors = any(isinstance(output, Tensor | Bundle) for output in self.spec.outputs)
        return not self.is_terminal or tensors or all(file.optional for file in self.files)
