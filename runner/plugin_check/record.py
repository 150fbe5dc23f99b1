"""The engine's own loop, watched from the stage's side: what items were given is kept, to be made again."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from runner.events import ItemFinished, Progress
from runner.files import handoff
from runner.plugins import load_object
from runner.stream.blocks import Block, find_blocks
from runner.stream.lockstep import Lockstep
from runner.worker import rng as randomness
from runner.worker.finite import FiniteCheck
from runner.worker.loop import Loop
from runner.worker.output_writer import check_outputs, write_outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from runner.api import Context, Item, Saved
    from runner.events import Event
    from runner.protocol import Job, JobItem

Content = dict[str, object]
"""What an item left, by output: bytes, a text, or a tensor's dtype, shape and bytes."""


@dataclass(frozen=True)
class MadeItem:
    """One item as the engine had it made."""

    id: str
    params: Any
    inputs: Mapping[str, Any]
    content: Content
    steps: int
    """How many it has told of."""
    state_at: int
    """The last step but the last of all with a state to go on from; 0 if there was none."""
    went_on: bool
    """Whether its code has looked at what was saved, and there was something."""


@dataclass
class _Item:
    """Implements :class:`runner.api.Item`."""

    id: str
    params: Any
    inputs: Mapping[str, Any]
    on_step: Callable[[int, int, Any], object]
    check_finite: Callable[[str, Any], None]
    on_warning: Callable[..., object] = lambda *_, **__: None
    found: Saved | None = None
    looked: bool = False

    @property
    def saved(self) -> Saved | None:
        self.looked = True
        return self.found

    def step(self, step: int, steps: int, state: Any = None) -> None:
        self.on_step(step, steps, state)

    def warn(self, kind: str, message: str, **details: Any) -> None:
        self.on_warning(kind, message, **details)

    def note(self, message: str) -> None:
        """What the loop has heard already is not passed on."""


@dataclass
class _Context:
    """Implements :class:`runner.api.Context`: the worker's, and a note of what was loaded."""

    worker: Context
    loaded: list[torch.nn.Module]

    @property
    def device(self) -> Any:
        return self.worker.device

    @property
    def dtype(self) -> Any:
        return self.worker.dtype

    def load(self, component: str) -> Any:
        found = self.worker.load(component)
        if isinstance(found, torch.nn.Module) and found not in self.loaded:
            self.loaded.append(found)
        return found

    def config(self, component: str) -> Mapping[str, Any]:
        return self.worker.config(component)


@dataclass
class Recording:
    """A job run by the engine's loop in this process; its items can be made again by the stage's code."""

    job: Job
    folder: Path
    stop_at: int | None = None
    """The step that the loop is asked to stop at."""
    made: list[MadeItem] = field(default_factory=list)
    modules: list[torch.nn.Module] = field(default_factory=list)
    """Components that were loaded."""
    errors: list[str] = field(default_factory=list)
    """What was told of items that failed."""
    device: Any = None
    at: str = ""
    """The item that is made, or was the last."""

    def run(self) -> None:
        """Have the loop run the job.

        Raises:
            Exception: whatever the stage's ``start`` raises, or the engine around it.

        """
        global _recording  # noqa: PLW0603 - for item_under_way
        _recording = self
        self._loop = Loop(self.job, self._note, self.start)
        self._loop.run()

    def _note(self, event: Event) -> None:
        match event:
            case ItemFinished():
                if event.error is not None:
                    self.errors.append(event.error)
                self._job_item(event.item).state.unlink(missing_ok=True)  # the supervisor's part
            case Progress(step=self.stop_at):
                self._loop.stop()

    def start(self, ctx: Context) -> Callable[[Item], object]:
        """Stand in for the stage's own function."""
        self.device = ctx.device
        self._one = load_object(self.job.stage.start)(_Context(ctx, self.modules))
        return self._record

    def _record(self, item: Item) -> object:
        self.at = item.id
        inputs = self.copied(item.inputs)
        params = copy.deepcopy(item.params)
        steps: list[int] = [0]
        states: list[int] = [0]

        def on_step(step: int, of: int, state: Any) -> None:
            steps.append(step)
            if state is not None and step < of:
                states.append(step)
            item.step(step, of, state)

        own = _Item(item.id, item.params, item.inputs, on_step, item.check_finite, item.warn, item.saved)
        returned = self._one(own)
        content = self.content(item.id, returned)
        went_on = own.looked and own.found is not None
        self.made.append(MadeItem(item.id, params, inputs, content, len(steps) - 1, states[-1], went_on))
        return returned

    def again(self, made: MadeItem, on_step: Callable[[], object] = lambda: None) -> Content:
        """Make an item again; returns what it leaves."""
        return self.content(made.id, self.call(made, self.copied(made.inputs), on_step))

    @staticmethod
    def copied(inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs that a stage may write into."""
        return {name: v.clone() if isinstance(v, torch.Tensor) else v for name, v in inputs.items()}

    def call(
        self, made: MadeItem, inputs: Mapping[str, Any], on_step: Callable[[], object] = lambda: None
    ) -> object:
        """Call the stage's code for an item again, and return what it returns."""
        self.at = made.id
        check_finite = FiniteCheck(self.job.dtype).check
        item = _Item(made.id, copy.deepcopy(made.params), inputs, lambda *_: on_step(), check_finite)
        randomness.seed_everything(self._job_item(made.id).key, self.device)
        with torch.inference_mode():
            return self._one(item)

    def interleaved(self) -> list[tuple[MadeItem, Content]]:
        """Make all items in turns, each going on at every step and at every block of a component.

        An item that is alone is made in turns with itself.
        """
        lockstep = Lockstep(lambda _block: None)
        for module in self.modules:
            for block in find_blocks(module, partial(_is_list, module)):
                lockstep.watch(block)
        gate = Block("step", torch.nn.Identity())
        lockstep.watch(gate)
        left: list[tuple[MadeItem, Content]] = []

        def call(made: MadeItem) -> None:
            left.append((made, self.again(made, lambda: gate.module(None))))

        together = self.made if len(self.made) > 1 else 2 * self.made
        with torch.inference_mode():
            lockstep.run([partial(call, made) for made in together], lambda: None)
        return left

    def content(self, item_id: str, returned: object) -> Content:
        """What would be written, by the worker's own checks and conversions."""
        job = self.job
        item = self._job_item(item_id)
        own = _in_folder(item, self.folder)
        save_dtype = getattr(torch, job.save_dtype) if job.save_dtype else None
        outputs = check_outputs(job.stage, returned, save_dtype)
        write_outputs(own, outputs, {"key": item.key, "stage": job.name, "lineage": {}})
        left: Content = {name: path.read_bytes() for name, path in own.files.items() if path.exists()}
        if own.handoff is not None:
            found = handoff.read(own.handoff)
            left |= found.text
            for name, info in found.header.tensors.items():
                left[name] = (info.dtype, info.shape, found.data[info.start : info.end])
        for path in (own.handoff, *own.files.values()):
            if path is not None:
                path.unlink(missing_ok=True)
        return left

    def _job_item(self, item_id: str) -> JobItem:
        return next(item for item in self.job.items if item.id == item_id)


_recording: Recording | None = None


def item_under_way() -> str:
    """The item that is made in this process; empty if there is none."""
    return _recording.at if _recording else ""


def _in_folder(item: JobItem, folder: Path) -> JobItem:
    """The item with its files elsewhere; those beside the hand-off stay beside it."""
    moved = {
        path: folder / f"{len(path.parts)}" / path.name
        for path in (item.handoff, *item.files.values())
        if path
    }
    own = moved[item.handoff] if item.handoff else None
    return replace(item, handoff=own, files={name: moved[path] for name, path in item.files.items()})


def _is_list(module: torch.nn.Module, name: str) -> bool:
    return isinstance(module.get_submodule(name), torch.nn.ModuleList)
