"""Runs a job with the engine's own loop and records each item, so that it can be made again and compared."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from runner.events import ItemFinished, Progress
from runner.pipeline.suffixes import with_suffixes
from runner.plugins import load_object
from runner.stream.blocks import Block, find_blocks
from runner.stream.lockstep import Lockstep
from runner.worker import rng
from runner.worker.finite import FiniteCheck
from runner.worker.loop import Loop
from runner.worker.output_writer import check_outputs, write_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runner.api import Context, Item, ModelFacts, Saved
    from runner.events import Event
    from runner.protocol import Job, JobItem
    from runner.worker.output_writer import Outputs

Content = dict[str, object]
"""An item's outputs by name, to compare: a text, a file's bytes, or a tensor's bytes with dtype and shape."""


@dataclass
class MadeItem:
    """One item as the engine made it."""

    id: str
    params: Any
    inputs: Mapping[str, Any]
    content: Content = field(default_factory=dict)
    steps: int = 0
    """Calls of ``item.step``."""
    state_at: int = 0
    """The last step, except the final one, that reported a state; 0 if none did."""
    resumed: bool = False
    """Whether the stage read ``item.saved``, and it was not None."""


@dataclass
class _Item:
    """Implements :class:`runner.api.Item`."""

    id: str
    params: Any
    inputs: Mapping[str, Any]
    on_step: Callable[[int, int, Any], object]
    check_finite: Callable[[str, Any], None]
    on_warning: Callable[..., object] = lambda *_, **__: None
    state: Saved | None = None
    was_read: bool = False

    @property
    def saved(self) -> Saved | None:
        self.was_read = True
        return self.state

    def step(self, step: int, steps: int, state: Any = None) -> None:
        self.on_step(step, steps, state)

    def warn(self, kind: str, message: str, **details: Any) -> None:
        self.on_warning(kind, message, **details)

    def note(self, message: str) -> None:
        """Do nothing: notes have no effect on what is compared."""


@dataclass
class _Context:
    """Implements :class:`runner.api.Context` with the worker's own; records the modules that are loaded."""

    worker: Context
    loaded: list[torch.nn.Module]

    @property
    def device(self) -> Any:
        return self.worker.device

    @property
    def dtype(self) -> Any:
        return self.worker.dtype

    def load(self, component: str) -> Any:
        module = self.worker.load(component)
        if isinstance(module, torch.nn.Module) and module not in self.loaded:
            self.loaded.append(module)
        return module

    @property
    def model(self) -> ModelFacts | None:
        return self.worker.model

    def config(self, component: str) -> Mapping[str, Any]:
        return self.worker.config(component)

    def buffers(self, component: str) -> Mapping[str, torch.Tensor]:
        return self.worker.buffers(component)

    def dtype_of(self, component: str) -> torch.dtype:
        dtype: torch.dtype = self.worker.dtype_of(component)
        return dtype


@dataclass
class Recording:
    """A job run by the engine's loop in this process; its items can be made again by the stage's code."""

    job: Job
    on_item: Callable[[str], object]
    """Called with the id of each item before it is made."""
    stop_at: int | None = None
    """The step at which the loop is asked to stop."""
    made: list[MadeItem] = field(default_factory=list)
    modules: list[torch.nn.Module] = field(default_factory=list)
    """Components that were loaded."""
    errors: list[str] = field(default_factory=list)
    """Error messages of items that failed."""
    device: Any = None

    def run(self) -> None:
        """Run the job with the worker's loop.

        Raises:
            Exception: whatever the stage's ``start`` raises, or the engine around it.

        """
        self._running: dict[str, MadeItem] = {}
        self._loop = Loop(self.job, self._on_event, self._start, self._write)
        self._loop.run()

    def _on_event(self, event: Event) -> None:
        match event:
            case ItemFinished():
                if event.error is not None:
                    self.errors.append(event.error)
                # in a real run, the supervisor removes it
                self._job_item(event.item).state.unlink(missing_ok=True)
            case Progress(step=self.stop_at):
                self._loop.stop()

    def _start(self, ctx: Context) -> Callable[[Item], object]:
        """Start the stage as the loop would, with recording contexts and items."""
        self.device = ctx.device
        self._make = load_object(self.job.stage.start)(_Context(ctx, self.modules))
        return self._record

    def _record(self, item: Item) -> object:
        self.on_item(item.id)
        made = MadeItem(item.id, copy.deepcopy(item.params), self.copied(item.inputs))
        self._running[item.id] = made

        def on_step(step: int, steps: int, state: Any) -> None:
            made.steps += 1
            if state is not None and step < steps:
                made.state_at = step
            item.step(step, steps, state)

        own = _Item(item.id, item.params, item.inputs, on_step, item.check_finite, item.warn, item.saved)
        returned = self._make(own)
        made.resumed = own.was_read and own.state is not None
        return returned

    def _write(self, item: JobItem, outputs: Outputs, provenance: Mapping[str, Any]) -> None:
        """Write an item's outputs as the loop would, and keep them to compare."""
        write_outputs(item, outputs, provenance)
        made = self._running.pop(item.id)
        made.content = _content(outputs)
        self.made.append(made)

    def again(self, made: MadeItem, on_step: Callable[[], object] = lambda: None) -> Content:
        """Make an item again; returns its outputs."""
        return self.content(made, self.call(made, self.copied(made.inputs), on_step))

    @staticmethod
    def copied(inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that a stage may write into."""
        return {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in inputs.items()}

    def call(
        self, made: MadeItem, inputs: Mapping[str, Any], on_step: Callable[[], object] = lambda: None
    ) -> object:
        """Call the stage's code for an item again, and return what it returns."""
        self.on_item(made.id)
        check_finite = FiniteCheck(self.job.dtype).check
        item = _Item(made.id, copy.deepcopy(made.params), inputs, lambda *_: on_step(), check_finite)
        rng.seed_everything(self._job_item(made.id).key, self.device)
        with torch.inference_mode():
            return self._make(item)

    def interleaved(self) -> list[tuple[MadeItem, Content]]:
        """Make all items in turns, switching at every step and at every block of a component.

        A single item is made in turns with itself.
        """
        lockstep = Lockstep(lambda _block: None)
        for module in self.modules:
            for block in find_blocks(module, partial(_is_list, module)):
                lockstep.watch(block)
        gate = Block("step", torch.nn.Identity())
        lockstep.watch(gate)
        results: list[tuple[MadeItem, Content]] = []

        def call(made: MadeItem) -> None:
            results.append((made, self.again(made, lambda: gate.module(None))))

        together = self.made if len(self.made) > 1 else 2 * self.made
        with torch.inference_mode():
            lockstep.run([partial(call, made) for made in together], lambda: None)
        return results

    def content(self, made: MadeItem, returned: object) -> Content:
        """What the stage returned for an item, after the worker's own checks and conversions.

        Raises:
            OutputError: it is not what the stage declares, or not finite.

        """
        dtype = getattr(torch, self.job.dtype)
        save_dtype = getattr(torch, self.job.save_dtype) if self.job.save_dtype else None
        stage = with_suffixes(self.job.stage, self._job_item(made.id).lineage["params"])
        return _content(check_outputs(stage, returned, dtype, save_dtype))

    def _job_item(self, item_id: str) -> JobItem:
        return next(item for item in self.job.items if item.id == item_id)


def _content(outputs: Outputs) -> Content:
    tensors = {name: save({name: tensor}) for name, tensor in outputs.tensors.items()}
    bundles = {
        name: save({**bundle.tensors}, {"values": json.dumps(bundle.values, sort_keys=True)})
        for name, bundle in outputs.bundles.items()
    }
    return {**tensors, **bundles, **outputs.texts, **outputs.files}


def _is_list(module: torch.nn.Module, name: str) -> bool:
    return isinstance(module.get_submodule(name), torch.nn.ModuleList)
