"""A stage of a manifest, bound to the plugin's stage behind it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from runner.api import File, Stage, Tensor, Text
from runner.machine.devices import choose_device

if TYPE_CHECKING:
    from pydantic import BaseModel

    from runner.manifest.schema import Budget, ModelSource, StageTable
    from runner.pipeline.wiring import Wires


@dataclass(frozen=True)
class PipelineStage:
    """A stage of the manifest with the plugin's stage behind it."""

    index: int
    table: StageTable
    spec: Stage
    params: type[BaseModel] | None
    wires: Wires
    budget: Budget
    model: ModelSource | None
    consumed: frozenset[str]
    """Names of its outputs that later stages take."""

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def device(self) -> str:
        """The torch device that it runs on, chosen once by its budget.

        Raises:
            BudgetError: this machine has no such device.

        """
        return choose_device(self.budget)

    @cached_property
    def sources(self) -> set[int]:
        """Stages, by index, that it takes from."""
        return {source.stage for source in self.wires.values()}

    @property
    def is_terminal(self) -> bool:
        """Whether what it leaves is for people: no other stage takes any of it."""
        return not self.consumed

    @cached_property
    def files(self) -> tuple[File, ...]:
        """What it leaves as files: its ``File`` outputs and, where it is last, its texts for people."""
        files = [output for output in self.spec.outputs if isinstance(output, File)]
        if self.is_terminal:
            texts = [output for output in self.spec.outputs if isinstance(output, Text)]
            files += [File(text.name, ".txt", text.optional) for text in texts]
        return tuple(files)

    @cached_property
    def leaves_handoff(self) -> bool:
        """Whether there is a hand-off: always for later stages, else for tensors, or if no file is sure."""
        tensors = any(isinstance(output, Tensor) for output in self.spec.outputs)
        return not self.is_terminal or tensors or all(file.optional for file in self.files)
