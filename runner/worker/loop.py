"""The worker's main loop: set up the stage once, then schedule, run and report its items."""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from runner.accelerator.backends import backend_of
from runner.accelerator.backends.generic import AcceleratorBackend
from runner.events import Alive, Finished, ItemFinished, Ready, Stuck, Wanting
from runner.machine.describe import installed_versions
from runner.machine.malloc import retain_freed_memory
from runner.pipeline.for_model import params_model
from runner.pipeline.suffixes import with_suffixes
from runner.placement.adapters import adapter_name, begin_item
from runner.plugins import load_object
from runner.worker.checkpoint import CheckpointFile
from runner.worker.context import WorkerContext
from runner.worker.device_timer import DeviceTimer, DeviceTurns
from runner.worker.inputs import check_files, read_inputs
from runner.worker.item import TRACEBACK_LIMIT, CancelledError, ItemRun, WorkerItem
from runner.worker.item_queue import ItemQueue
from runner.worker.item_timer import ItemTimer, Watchdog
from runner.worker.memory_held import memory_held
from runner.worker.output_writer import Outputs, check_outputs, write_outputs
from runner.worker.scheduler import schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from runner.api import Context, Item
    from runner.protocol import Job, JobItem, MoreItems
    from runner.stream.stream import Stream
    from runner.worker.item import Report

    Start = Callable[[Context], Callable[[Item], Any]]
    """Loads the stage's components; returns the function that computes one item."""
    Write = Callable[[JobItem, Outputs, Mapping[str, Any]], None]


class Loop:
    """Runs the items of one job and reports the outcome of each."""

    def __init__(
        self, job: Job, report: Report, start: Start | None = None, write: Write = write_outputs
    ) -> None:
        """``start`` replaces the stage's own start function, ``write`` the writer of outputs."""
        self._job = job
        self._report = report
        self._start = start
        self._write = write
        self._backend = backend_of(job.device)
        backend = self._backend
        self._turns = DeviceTurns(backend) if isinstance(backend, AcceleratorBackend) else None
        self._stopping = threading.Event()
        self._items = ItemQueue(job.items, is_open=job.is_open, want=lambda: report(Wanting()))
        self._group: list[ItemRun] = []
        """The items that run now."""
        self._dtype: torch.dtype = getattr(torch, job.dtype)
        self._save_dtype = getattr(torch, job.save_dtype) if job.save_dtype else None

    def stop(self) -> None:
        """End at the next block, step or item. Called from another thread."""
        self._stopping.set()
        self._items.stop()

    def feed(self, more: MoreItems) -> None:
        """Take further items of an open job. Called from another thread."""
        self._items.add(more.items, last=more.last)

    def run(self) -> None:
        """Run every item, or until stopped.

        Raises:
            RunnerError: the worker cannot continue (storage, device, model).

        """
        job = self._job
        self._set_up_torch()
        self._environment = _environment(job)
        self._params = params_model(job.stage, job.facts)
        with torch.inference_mode():
            context = WorkerContext(job)
            self._compute = (self._start or load_object(job.stage.start))(context)
            if job.retains_freed_memory:
                retain_freed_memory()
            self._report(Ready())
            stream = context.stream
            group_size = job.group if stream.active else 1
            with self._watchdog():
                items, begin = self._items, self._item_run
                for group in schedule(items, begin, group_size, job.retries, self._stopping):
                    self._run_group(group, stream)
        stream.close()
        streamed = {"read": stream.bytes_read, "waited": round(stream.waited, 3)} if stream.active else None
        self._report(Finished(**memory_held(job.device), streamed=streamed))

    def _set_up_torch(self) -> None:
        job = self._job
        torch.set_num_threads(job.threads)
        # the fast path is used only if all weights are in memory: results would depend on the placement
        torch.backends.mha.set_fastpath_enabled(False)
        self._backend.check()
        self._backend.make_current()
        self._backend.limit_memory(job.vram)

    def _item_run(self, item: JobItem) -> ItemRun:
        job = self._job
        file = CheckpointFile(item.state, item.key, torch.device(job.device), self._environment)
        timer = DeviceTimer(job.timeout, self._turns) if self._turns else ItemTimer(job.timeout)
        return ItemRun(
            job.name, item, file, timer, self._report, self._stopping, job.checkpoint_every, job.dtype
        )

    def _run_group(self, group: list[ItemRun], stream: Stream) -> None:
        """Run items, in lockstep if weights are streamed: a block is then loaded once for the whole group."""
        self._group = group
        if stream.active:
            calls = [partial(self._run_item, run) for run in group]
            stream.run(calls, self._reason_to_stop, [run.timer for run in group].__getitem__)
            return
        for run in group:
            with run.timer:
                self._run_item(run)

    def _run_item(self, run: ItemRun) -> None:
        """Read the inputs, compute, and write the outputs of one item; report the outcome."""
        stage, item = self._job.stage, run.item
        with run.attempt():
            if self._job.adapters is not None:
                begin_item(item.lora_weights, [adapter_name(n) for n in self._job.adapters.files])
            inputs = read_inputs(stage, item, self._params)
            for warning in inputs.warnings():
                self._report(replace(warning, item=item.id))
            params = inputs.params(self._params, item)
            check_files(params, item)
            returned = self._compute(WorkerItem(run, params, inputs.values, run.begin()))
            check_files(params, item)  # what was read is what its key says
            run.finite.raise_if_seen()
            stage = with_suffixes(stage, item.lineage["params"])
            outputs = check_outputs(stage, returned, self._dtype, self._save_dtype)
            self._write(item, outputs, self._provenance(run, inputs.lineage))
            run.timer.settle()
        self._report_outcome(run)

    def _provenance(self, run: ItemRun, lineage: Mapping[str, Any]) -> dict[str, Any]:
        """What an item was made from, to be written with its outputs."""
        name, item = self._job.name, run.item
        warnings = {"warnings": run.warnings} if run.warnings else {}
        return {
            "key": item.key,
            "stage": name,
            "lineage": {**lineage, name: {**item.lineage, **self._environment, **warnings}},
            **self._environment,
        }

    def _report_outcome(self, run: ItemRun) -> None:
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

    def _reason_to_stop(self) -> CancelledError | None:
        return CancelledError() if self._stopping.is_set() else None

    def _watchdog(self) -> AbstractContextManager[None]:
        if self._job.timeout is None:
            return nullcontext()
        return Watchdog(
            lambda: [run.timer for run in self._group], lambda: self._report(Alive()), self._report_stuck
        )

    def _report_stuck(self, timer: ItemTimer) -> None:
        run = next(run for run in self._group if run.timer is timer)
        frames = sys._current_frames()  # noqa: SLF001 - the only way to see the main thread's stack
        trace = "".join(traceback.format_stack(frames[threading.main_thread().ident or 0]))
        self._report(Stuck(item=run.item.id, seconds=run.seconds, traceback=trace[-TRACEBACK_LIMIT:]))


def _environment(job: Job) -> dict[str, Any]:
    """Versions, device and threads: whatever may change the low bits of results, apart from the key."""
    return {
        "versions": installed_versions(job.distribution),
        "device": backend_of(job.device).name(),
        "threads": str(job.threads),
    }
