"""The engine's loop around a stage: load once, then item after item, each one's failure its own."""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load as load_tensors

from runner import handoff
from runner.errors import BudgetError, RunnerError
from runner.params import Given, names_of, validate
from runner.plugins import load_object
from runner.worker.allocator import is_out_of_memory, limit_vram, vram_peak
from runner.worker.context import CancelledError, WorkerContext, WorkerItem
from runner.worker.publish import OutputError, publish
from runner.worker.versions import installed_versions

if TYPE_CHECKING:
    from runner.protocol import Input, Job, JobItem
    from runner.stream.stream import Stream

Report = Callable[..., None]
# characters of what a failing item may say; the log has it whole
ERROR_LIMIT = 1000
TRACEBACK_LIMIT = 20_000


class Loop:
    """Runs the items of one job and reports what becomes of each."""

    def __init__(self, job: Job, report: Report) -> None:
        self._job = job
        self._report = report
        self._stopping = False
        self._save_dtype = getattr(torch, job.save_dtype) if job.save_dtype else None

    def stop(self) -> None:
        """End at the next step or item. Called from another thread."""
        self._stopping = True

    def run(self) -> None:
        """Run every item, or until stopped.

        Raises:
            RunnerError: nothing more can be done here (storage, device, model).

        """
        job = self._job
        torch.set_num_threads(job.threads)
        _check_device(job.device)
        limit_vram(job.device, job.vram)
        self._versions = installed_versions(job.distribution)
        self._params = load_object(job.stage.params) if job.stage.params else None
        with torch.inference_mode():
            context = WorkerContext(job)
            one = load_object(job.stage.start)(context)
            self._report("ready")
            stream = context.stream
            if stream.active:
                self._run_in_groups(one, stream)
            else:
                self._run_one_by_one(one)
        told = {"read": stream.bytes_read, "waited": round(stream.waited, 3)} if stream.active else None
        self._report("finished", vram=vram_peak(job.device), streamed=told)

    def _run_one_by_one(self, one: Callable[[WorkerItem], Any]) -> None:
        for item in self._job.items:
            if self._stopping or not self._attempt(one, item):
                break

    def _run_in_groups(self, one: Callable[[WorkerItem], Any], stream: Stream) -> None:
        """Items in lockstep, a group at a time: each block's weights come once a step for all of a group."""
        items = self._job.items
        for first in range(0, len(items), self._job.group):
            group = items[first : first + self._job.group]
            if self._stopping:
                break
            calls = [partial(self._attempt, one, item) for item in group]
            stream.run(calls, self._reason_to_stop)

    def _reason_to_stop(self) -> CancelledError | None:
        return CancelledError() if self._stopping else None

    def _attempt(self, one: Callable[[WorkerItem], Any], item: JobItem) -> bool:
        """Run one item, again as often as it may; False if the supervisor asked to stop."""
        self._report("item_started", item=item.id)
        started = time.monotonic()
        told: dict[str, Any] = {}
        for attempt in range(1, self._job.retries + 2):
            try:
                self._run_item(one, item)
            except CancelledError:
                return False
            except RunnerError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                traceback.print_exc()
                told = {
                    "error": f"{type(error).__name__}: {error}"[:ERROR_LIMIT],
                    "traceback": traceback.format_exc()[-TRACEBACK_LIMIT:],
                    "attempts": attempt,
                }
            else:
                told = {}
                break
        status = "failed" if told else "done"
        seconds = time.monotonic() - started
        self._report("item_finished", item=item.id, status=status, seconds=seconds, **told)
        return True

    def _run_item(self, one: Callable[[WorkerItem], Any], item: JobItem) -> None:
        _seed_everything(item.key)
        inputs, texts, lineage = self._inputs(item)
        params = None
        if self._params is not None:
            params = validate(self._params, Given({**item.params.values, **texts}, item.params.text_only))

        def on_step(step: int, steps: int) -> None:
            self._report("progress", item=item.id, step=step, steps=steps)
            if self._stopping:
                raise CancelledError

        returned = one(WorkerItem(item.id, params, inputs, on_step))
        provenance = {
            "key": item.key,
            "stage": self._job.name,
            "lineage": {**lineage, self._job.name: item.lineage},
            "versions": self._versions,
            "device": _device_name(self._job.device),
            "threads": str(self._job.threads),
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


def _value(source: Input, found: handoff.Handoff, tensors: dict[str, torch.Tensor]) -> Any:
    """The input's value; None where the stage before left it out."""
    if source.file is not None:
        return source.file if source.output in found.files else None
    if source.output in found.text:
        return found.text[source.output]
    tensor = tensors.get(source.output)
    # a copy lies at torch's own boundary, as results to the bit require
    return None if tensor is None else tensor.clone()


def _seed_everything(key: str) -> None:
    """Random numbers that a stage draws without a generator depend on its item alone, not on the batch."""
    seed = int(key[:16], 16)
    random.seed(seed)
    torch.manual_seed(seed)
    import numpy as np

    np.random.seed(seed % 2**32)  # noqa: NPY002 - the legacy generator is what careless code draws from


def _check_device(device: str) -> None:
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BudgetError(f"the device is {device}, and the PyTorch installed here has no CUDA support")


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"
