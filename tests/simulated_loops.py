"""Items of a stage that draws from the device's default generator, interrupted or not, by the worker's own loop."""

# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import contextvars
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors.torch import load
from towers import WIDTH, as_streamed
from worker_job import Reports, item_of, job_of

from runner.events import Progress
from runner.files import handoff
from runner.worker.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.api import Context, Item
    from runner.events import Event
    from runner.protocol import Job

NAMES, STEPS = ("a", "b", "c"), 4


class Drawn(NamedTuple):
    """What came of it."""

    together: bool
    """Whether items in lockstep have the results that each has alone."""
    resumed: bool
    """Whether interrupted items have the results of those that ran to their ends."""
    distinct: bool
    """Whether each item has numbers of its own."""
    steps: list[int]
    """The steps that items were resumed from."""
    violations: list[str]


def drawn(tower: str, folder: str, device: str) -> Drawn:
    import torch_sim

    def job(name: str, group: int) -> Job:
        items = [item_of(Path(folder) / name, item) for item in NAMES]
        return job_of(items, device=device, group=group, checkpoint_every=1)

    alone, lockstep, broken = job("alone", 1), job("lockstep", 3), job("broken", 3)
    _run(alone, tower)
    _run(lockstep, tower)
    _run(broken, tower, stop_at=("b", 2))
    torch.rand(100, device=device)
    resumed = _run(broken, tower).of("resumed")
    torch.accelerator.synchronize()
    expected = _results(alone)
    return Drawn(
        together=_equal(_results(lockstep), expected),
        resumed=_equal(_results(broken), expected),
        distinct=len({tuple(result.flatten().tolist()) for result in expected}) == len(NAMES),
        steps=[event["step"] for event in resumed],
        violations=torch_sim.take_violations(),
    )


def _run(job: Job, tower: str, stop_at: tuple[str, int] | None = None) -> Reports:
    reports = Reports()

    def report(event: Event) -> None:
        reports(event)
        if isinstance(event, Progress) and (event.item, event.step) == stop_at:
            loop.stop()

    loop = Loop(job, report, _start(Path(tower)))
    contextvars.copy_context().run(loop.run)
    return reports


def _start(folder: Path) -> Callable[[Context], Callable[[Item], Any]]:
    def start(context: Any) -> Callable[[Item], Any]:
        module, _ = as_streamed(folder, stream=context.stream, device=context.device)

        def one(item: Item) -> dict[str, torch.Tensor]:
            first, x = 0, torch.zeros(3, WIDTH, device=context.device)
            if item.saved is not None:
                first, x = item.saved.step, item.saved.state.to(context.device)
            for step in range(first, STEPS):
                x = module(x + torch.randn(3, WIDTH, device=context.device)) / 2
                item.step(step + 1, STEPS, x)
            return {"x": x + torch.rand(1, device=context.device)}

        return one

    return start


def _results(job: Job) -> list[torch.Tensor]:
    return [load(handoff.read(item.handoff, item.key).data)["x"] for item in job.items if item.handoff]


def _equal(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))
