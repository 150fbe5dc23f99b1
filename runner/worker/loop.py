"""The engine's loop around a stage: load once, then item after item, each one's failure its own."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_tensors

from runner.errors import BudgetError
from runner.events import Alive, Finished, ItemFinished, Ready, Stuck, Warned
from runner.files import handoff
from runner.machine.describe import installed_versions
from runner.machine.malloc import retain_freed_memory
from runner.machine.ram import ram_of
from runner.manifest.params import RawParams, names_of, validate
from runner.plugins import load_object
from runner.worker.allocator import limit_vram, vram_peak
from runner.worker.checkpoint import CheckpointFile
from runner.worker.context import WorkerContext
from runner.worker.item import TRACEBACK_LIMIT, CancelledError, ItemRun, WorkerItem
from runner.worker.item_timer import ItemTimer, Watchdog
from runner.worker.output_writer import OutputError, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from runner.protocol import Input, Job, JobItem
    from runner.stream.stream import Stream
    from runner.worker.item import Report

BACK_OFF, LONGEST_BACK_OFF = 0.5, 30.0  # seconds before failed items are tried again; doubled each time


class Loop:
    """Runs the items of one job and reports what becomes of each."""

    def __init__(self, job: Job, report: Report) -> None:
        self._job = job
        self._report = report
        self._stopping = threading.Event()
        self._group: list[ItemRun] = []
        self._save_dtype = getattr(torch, job.save_dtype) if job.save_dtype else None

    def stop(self) -> None:
        """End at the next block, step or item. Called from another thread."""
        self._stopping.set()

    def run(self) -> None:
        """Run every item, or until stopped.

        Raises:
            RunnerError: nothing more can be done here (storage, device, model).

        """
        job = self._job
        torch.set_num_threads(job.threads)
        # its other path is taken only where all weights are there: results would depend on the placement
        torch.backends.mha.set_fastpath_enabled(False)
        _check_device(job.device)
        limit_vram(job.device, job.vram)
        self._circumstances = {
            "versions": installed_versions(job.distribution),
            "device": _device_name(job.device),
            "threads": str(job.threads),
        }
        self._params = load_object(job.stage.params) if job.stage.params else None
        with torch.inference_mode():
            context = WorkerContext(job)
            one = load_object(job.stage.start)(context)
            if job.retains_freed_memory:
                retain_freed_memory()
            self._report(Ready())
            stream = context.stream
            with self._watched():
                self._run_rounds(partial(self._make, one), stream)
        streamed = {"read": stream.bytes_read, "waited": round(stream.waited, 3)} if stream.active else None
        self._report(Finished(vram=vram_peak(job.device), ram=ram_of(os.getpid()), streamed=streamed))

    def _watched(self) -> AbstractContextManager[None]:
        if self._job.timeout is None:
            return nullcontext()
        return Watchdog(
            lambda: [run.clock for run in self._group], lambda: self._report(Alive()), self._tell_stuck
        )

    def _tell_stuck(self, clock: ItemTimer) -> None:
        run = next(run for run in self._group if run.clock is clock)
        frames = sys._current_frames()  # noqa: SLF001 - of the thread that makes the items
        trace = "".join(traceback.format_stack(frames[threading.main_thread().ident or 0]))
        self._report(Stuck(item=run.item.id, seconds=run.seconds, traceback=trace[-TRACEBACK_LIMIT:]))

    def _run_of(self, item: JobItem) -> ItemRun:
        file = CheckpointFile(item.state, item.key, torch.device(self._job.device), self._circumstances)
        clock = ItemTimer(self._job.timeout)
        job = self._job
        every, dtype = job.checkpoint_every, job.dtype
        return ItemRun(
            job.name, item, file, clock, self._report, lambda: not self._stopping.is_set(), every, dtype
        )

    def _run_rounds(self, make: Callable[[ItemRun], None], stream: Stream) -> None:
        """Run all items; those that failed are tried again when the others have had their turn."""
        failed = self._run_in_groups(map(self._run_of, self._job.items), make, stream)
        for attempt in range(self._job.retries):
            if not failed or self._stopping.wait(min(LONGEST_BACK_OFF, BACK_OFF * 2**attempt)):
                return
            failed = self._run_in_groups(iter(failed), make, stream)

    def _run_in_groups(
        self, runs: Iterator[ItemRun], make: Callable[[ItemRun], None], stream: Stream
    ) -> list[ItemRun]:
        """Items one by one; where weights are streamed, each block's come once a step for all of a group.

        Returns those that failed.
        """
        size = self._job.group if stream.active else 1
        failed: list[ItemRun] = []
        while not self._stopping.is_set() and (group := list(islice(runs, size))):
            self._group = group
            calls = [partial(self._attempt, run, make) for run in group]
            if stream.active:
                stream.run(calls, self._reason_to_stop, [run.clock for run in group].__getitem__)
            else:
                with group[0].clock:
                    calls[0]()
            failed += [run for run in group if run.failure]
        return failed

    def _reason_to_stop(self) -> CancelledError | None:
        return CancelledError() if self._stopping.is_set() else None

    def _attempt(self, run: ItemRun, make: Callable[[ItemRun], None]) -> None:
        run.attempt(make)
        failure = run.failure
        if failure is not None and run.attempts <= self._job.retries:
            self._report(failure)
        elif run.ended or failure is not None:
            self._report(
                ItemFinished(
                    stage=self._job.name,
                    item=run.item.id,
                    key=run.item.key,
                    status="failed" if failure else "done",
                    seconds=run.seconds,
                    error=failure.error if failure else None,
                    traceback=failure.traceback if failure else None,
                    attempts=run.attempts,
                )
            )

    def _make(self, one: Callable[[WorkerItem], Any], run: ItemRun) -> None:
        item = run.item
        inputs, texts, lineage = self._inputs(item)
        for warning in _warnings(lineage):
            self._report(replace(warning, item=item.id))
        params = None
        if self._params is not None:
            params = validate(self._params, RawParams({**item.params.values, **texts}, item.params.text_only))
        returned = one(WorkerItem(run, params, inputs, run.begin()))
        run.finite.settle()
        warned = {"warnings": run.warnings} if run.warnings else {}
        provenance = {
            "key": item.key,
            "stage": self._job.name,
            "lineage": {**lineage, self._job.name: {**item.lineage, **self._circumstances, **warned}},
            **self._circumstances,
        }
        publish(self._job.stage, item, returned, self._save_dtype, provenance)

    def _inputs(self, item: JobItem) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """The item's inputs, the texts that replace parameters, and the lineage of both."""
        optional = {needed.name: needed.optional for needed in self._job.stage.inputs}
        parameters = names_of(self._params) if self._params else []
        sources = item.inputs.values()
        read = {source.handoff: handoff.read(source.handoff, source.key) for source in sources}
        tensors = {path: load_tensors(found.data) for path, found in read.items()}
        inputs: dict[str, Any] = {}
        texts: dict[str, str] = {}
        lineage: dict[str, Any] = {}
        for found in read.values():
            lineage |= found.lineage
        for name, source in item.inputs.items():
            value = _value(source, read[source.handoff], tensors[source.handoff])
            if value is not None and name in optional:
                inputs[name] = value
            if value is not None and name in parameters:
                texts[name] = value
            if value is None and not optional.get(name, True):
                raise OutputError(f"'{name}' was not made for this item by the stage that may leave it")
        return inputs, texts, lineage


def _warnings(lineage: Mapping[str, Any]) -> Iterator[Warned]:
    """What earlier stages warned of when they made what this item takes: perhaps in an earlier run."""
    for stage, made in lineage.items():
        warnings = made.get("warnings")
        for warning in warnings if isinstance(warnings, list) else ():
            if isinstance(warning, dict) and warning.keys() == {"kind", "message", "details"}:
                yield Warned(stage=stage, **warning)


def _value(source: Input, found: handoff.Handoff, tensors: dict[str, torch.Tensor]) -> Any:
    """The input's value; None where the stage before left it out."""
    if source.file is not None:
        return source.file if source.output in found.files else None
    if source.output in found.text:
        return found.text[source.output]
    tensor = tensors.get(source.output)
    # a copy lies at torch's own boundary, as results to the bit require
    return None if tensor is None else tensor.clone()


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BudgetError(f"the device is {device}, and the PyTorch installed here has no CUDA support")


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
