"""One item's attempts at a stage: steps, checkpoints, time limit, and the outcome."""

from __future__ import annotations

import contextvars
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from greenlet import GreenletExit

from runner.accelerator.backends import DeviceLostError, backend_of, is_out_of_memory
from runner.errors import RunnerError, in_words
from runner.events import NOTE, ItemStarted, Progress, Resumed, Retrying, StateDiscarded, Warned
from runner.redact import redact
from runner.worker import rng
from runner.worker.checkpoint import DiscardedError, snapshot
from runner.worker.finite import FiniteCheck, is_finite
from runner.worker.item_timer import TimedOutError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping

    from runner.api import Saved
    from runner.events import Event
    from runner.protocol import JobItem
    from runner.worker.checkpoint import CheckpointFile, Snapshot
    from runner.worker.item_timer import ItemTimer

    Report = Callable[[Event], None]

# characters that are reported; the log has the whole text
ERROR_LIMIT = 1000
TRACEBACK_LIMIT = 20_000


class CancelledError(BaseException):
    """The supervisor asked to stop. Not an ``Exception``, so that a stage does not handle it."""


class WorkerItem:
    """Implements :class:`runner.api.Item`."""

    def __init__(self, run: ItemRun, params: Any, inputs: Mapping[str, Any], saved: Saved | None) -> None:
        self.id = run.item.id
        self.params = params
        self.inputs = inputs
        self.saved = saved
        self._run = run

    def step(self, step: int, steps: int, state: Any = None) -> None:
        self._run.on_step(int(step), int(steps), state)

    def warn(self, kind: str, message: str, **details: Any) -> None:
        self._run.on_warning(str(kind), str(message), details)

    def note(self, message: str) -> None:
        self._run.on_note(str(message))

    def check_finite(self, name: str, values: Any) -> None:
        self._run.finite.check(name, values)


class ItemRun:
    """The attempts at one item."""

    def __init__(
        self,
        stage: str,
        item: JobItem,
        file: CheckpointFile,
        timer: ItemTimer,
        report: Report,
        stopping: threading.Event,
        checkpoint_every: int,
        dtype: str,
    ) -> None:
        self.item = item
        self.timer = timer
        self.finite = FiniteCheck(dtype)
        self.warnings: list[dict[str, Any]] = []
        """Warnings of the last attempt."""
        self.attempts = 0
        self.failure: Retrying | None = None
        """The last attempt's failure, if it failed."""
        self.ended = False
        self._stage = stage
        self._before = 0.0
        """Seconds that were spent on the checkpoint it resumed from."""
        self._file = file
        self._report = report
        self._stopping = stopping
        self._every = checkpoint_every
        self._kept: tuple[int, int, Snapshot] | None = None
        """The last step, the number of steps, and the state that is not saved yet."""
        self._saved_at = 0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Run one attempt: what the body raises becomes :attr:`failure`, unless it concerns the whole worker.

        If the supervisor has asked to stop, the state is saved and the item has neither ended nor failed.

        Raises:
            RunnerError: the worker cannot continue (storage, device, model).

        """
        _CURRENT.set(self)
        self.finite.begin()
        self.warnings.clear()
        self.attempts += 1
        self._report(ItemStarted(item=self.item.id))
        try:
            yield
        except CancelledError:
            self._save()
        except (RunnerError, GreenletExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # the stage's code may even call sys.exit
            if is_out_of_memory(error):
                raise
            if backend_of(self._file.device).is_lost(error):
                raise DeviceLostError(f"the device {self._file.device} failed: {in_words(error)}") from error
            trace = traceback.format_exc()
            sys.stderr.write(redact(trace))
            self.failure = Retrying(
                stage=self._stage,
                item=self.item.id,
                error=_words(error)[:ERROR_LIMIT],
                traceback=trace[-TRACEBACK_LIMIT:],
                attempts=self.attempts,
            )
            # the next attempt starts from the beginning: the state may have caused the failure
            self._kept, self._saved_at = None, 0
            self._file.remove()
        else:
            # the supervisor removes the checkpoint: if killed before, the item resumes from it
            self.failure, self.ended = None, True

    @property
    def seconds(self) -> float:
        """Seconds that the item has computed, including those spent on the checkpoint it resumed from."""
        return self._before + self.timer.seconds

    def begin(self) -> Saved | None:
        """Seed the random generators, and load the checkpoint of an interrupted attempt, if there is one."""
        rng.seed_everything(self.item.key, self._file.device)
        try:
            found = self._file.load()
        except DiscardedError as reason:
            self._report(StateDiscarded(stage=self._stage, item=self.item.id, reason=str(reason)))
            return None
        if found is None:
            return None
        self._saved_at, self._before = found.saved.step, found.seconds
        self._report(
            Resumed(
                stage=self._stage,
                item=self.item.id,
                step=found.saved.step,
                steps=found.steps,
                seconds=found.seconds,
            )
        )
        return found.saved

    def on_step(self, step: int, steps: int, state: Any) -> None:
        self._report(Progress(stage=self._stage, item=self.item.id, step=step, steps=steps))
        if state is not None and step < steps:
            self._kept = (step, steps, snapshot(state))
            if step - self._saved_at >= self._every:
                self._save()
        self.check()

    def on_warning(self, kind: str, message: str, details: Mapping[str, Any]) -> None:
        """Report a stage's warning.

        Raises:
            TypeError: the details cannot be written as JSON.

        """
        warning = Warned(
            kind=kind,
            message=message[:ERROR_LIMIT],
            stage=self._stage,
            item=self.item.id,
            details=dict(details),
        )
        self._report(warning)
        self.warnings.append({"kind": kind, "message": warning.message, "details": warning.details})

    def on_note(self, message: str) -> None:
        """Report a stage's note; the supervisor shows equal notes once."""
        self._report(Warned(kind=NOTE, message=message[:ERROR_LIMIT], stage=self._stage))

    def check(self) -> None:
        """End the item if it must end. Called at each step and block.

        Raises:
            CancelledError: the supervisor asked to stop.
            TimedOutError: the item has reached its time limit.

        """
        if self._stopping.is_set():
            raise CancelledError
        self.timer.check()

    def _save(self) -> None:
        if self._kept is not None:
            step, steps, state = self._kept
            if all(map(is_finite, state.tensors.values())):
                self._file.save(step, steps, state, self.seconds)
            else:
                message = (
                    f"its state after step {step} of {steps} holds NaN or infinite values, and is not kept"
                )
                self.on_warning("state_not_finite", message, {"step": step, "steps": steps})
            self._saved_at, self._kept = step, None


def _words(error: BaseException) -> str:
    return str(error) if isinstance(error, TimedOutError) else in_words(error)


_CURRENT: contextvars.ContextVar[ItemRun | None] = contextvars.ContextVar("item", default=None)


def check_at_blocks(module: torch.nn.Module) -> None:
    """Make the running item call :meth:`ItemRun.check` before each block of the module."""
    for part in module.modules():
        if isinstance(part, torch.nn.ModuleList) and len(part) > 1:
            for block in part:
                block.register_forward_pre_hook(_check)


def _check(_module: torch.nn.Module, _args: object) -> None:
    run = _CURRENT.get()
    if run is not None:
        run.check()
