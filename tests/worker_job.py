"""Jobs made by hand, and the worker's loop on them in this process: a stage is a function in the test."""

from __future__ import annotations

import contextvars
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from runner.api import Stage, Tensor
from runner.events import encode
from runner.manifest.params import RawParams
from runner.protocol import Job, JobItem
from runner.worker.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from runner.api import Item
    from runner.events import Event

    One = Callable[[Item], Any]

STAGE = Stage(name="test.stage", start="nowhere:start", outputs=(Tensor("x", "any"),))


class Params(BaseModel):
    """Of stages that take a prompt."""

    prompt: str = "none"


def item_of(folder: Path, name: str, **changes: Any) -> JobItem:
    """An item with a key and places of its own."""
    key = hashlib.sha256(name.encode()).hexdigest()
    item = JobItem(
        id=name,
        key=key,
        params=RawParams({}),
        inputs={},
        handoff=folder / "handoff" / f"{key}.safetensors",
        state=folder / "state" / f"{key}.safetensors",
        files={},
        lineage={"params": {}, "key": key},
    )
    return replace(item, **changes)


def job_of(items: Sequence[JobItem], **changes: Any) -> Job:
    """A job of :data:`STAGE` on the CPU."""
    job = Job(
        name="stage",
        stage=STAGE,
        distribution="test-plugin",
        dtype="float32",
        save_dtype=None,
        device="cpu",
        threads=1,
        vram=None,
        ram=None,
        retains_freed_memory=False,
        placements={},
        group=1,
        components={},
        facts=None,
        dtypes={},
        retries=0,
        timeout=None,
        checkpoint_every=5,
        items=tuple(items),
    )
    return replace(job, **changes)


class Reports(list[dict[str, Any]]):
    """The events that a worker's code reports, as they are sent."""

    def __call__(self, event: Event) -> None:
        self.append(encode(event))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [report for report in self if report["event"] == event]


def run(job: Job, one: One, then: Callable[[Loop], None] = lambda _loop: None) -> Reports:
    """Run a job's items through ``one``; ``then`` is given the loop before it runs."""
    reports = Reports()
    loop = Loop(job, reports, lambda _context: one)
    then(loop)
    contextvars.copy_context().run(loop.run)
    return reports
