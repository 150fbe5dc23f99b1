"""The loop around a stage, in this process: the order of items, attempts, inputs, and what is reported."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from worker_job import Reports, item_of, job_of, run

from runner.errors import BudgetError
from runner.events import Stuck
from runner.files import handoff
from runner.worker import scheduler
from runner.worker.loop import Loop

if TYPE_CHECKING:
    from pathlib import Path

    from runner.api import Item
    from runner.events import Event
    from runner.protocol import JobItem


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait for nothing."""
    monkeypatch.setattr(scheduler, "BACK_OFF", 0.0)


def x(item: Item) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(3)}


def left(item: JobItem) -> torch.Tensor:
    from safetensors.torch import load

    assert item.handoff is not None
    return load(handoff.read(item.handoff, item.key).data)["x"]


def test_items_are_made_in_their_order_and_reported(tmp_path: Path) -> None:
    items = [item_of(tmp_path, name) for name in "ab"]
    reports = run(job_of(items), x)
    order = [(e["event"], e.get("item")) for e in reports]
    pairs = [(event, name) for name in "ab" for event in ("item_started", "item_finished")]
    assert order == [("ready", None), *pairs, ("finished", None)]
    assert all(torch.equal(left(item), torch.ones(3)) for item in items)
    (last,) = reports.of("finished")
    assert (last["vram"], last["streamed"]) == (None, None)
    assert last["ram"] > 1 << 20
    assert all(e["status"] == "done" and e["seconds"] > 0 for e in reports.of("item_finished"))


def test_a_failed_item_is_tried_again_after_the_others(tmp_path: Path) -> None:
    made: list[str] = []

    def one(item: Item) -> dict[str, torch.Tensor]:
        made.append(item.id)
        if item.id == "a" and len(made) < 4:
            raise ValueError(f"attempt {len(made)}")
        return x(item)

    reports = run(job_of([item_of(tmp_path, name) for name in "abc"], retries=3), one)
    assert made == ["a", "b", "c", "a"]
    (retrying,) = reports.of("retrying")
    assert (retrying["item"], retrying["error"], retrying["attempts"]) == ("a", "ValueError: attempt 1", 1)
    assert [(e["item"], e["status"]) for e in reports.of("item_finished")] == [
        ("b", "done"),
        ("c", "done"),
        ("a", "done"),
    ]
    assert reports.of("item_finished")[-1]["error"] is None


def test_retries_are_as_many_as_the_manifest_says(tmp_path: Path) -> None:
    def one(item: Item) -> Any:
        raise ValueError(item.id)

    reports = run(job_of([item_of(tmp_path, "a")], retries=2), one)
    assert [e["attempts"] for e in reports.of("retrying")] == [1, 2]
    (finished,) = reports.of("item_finished")
    assert (finished["status"], finished["attempts"]) == ("failed", 3)
    assert "in one" in finished["traceback"]


def test_a_failed_attempts_state_is_not_gone_on_from(tmp_path: Path) -> None:
    """What led to the failure may be in it."""
    steps: list[int] = []
    item = item_of(tmp_path, "a")

    def one(item: Item) -> dict[str, torch.Tensor]:
        first = item.saved.step if item.saved else 0
        failing = not steps
        for step in range(first + 1, 5):
            steps.append(step)
            item.step(step, 5, torch.full((2,), float(step)))
            if failing and step == 2:
                raise ValueError("not this time")
        return x(item)

    run(job_of([item], retries=1, checkpoint_every=1), one)
    assert steps == [1, 2, 1, 2, 3, 4]


def test_stopped_before_its_turn_an_item_is_not_begun(tmp_path: Path) -> None:
    loops: list[Loop] = []
    made: list[str] = []

    def one(item: Item) -> dict[str, torch.Tensor]:
        made.append(item.id)
        loops[0].stop()
        return x(item)

    reports = run(job_of([item_of(tmp_path, n) for n in "abc"], retries=1), one, loops.append)
    assert made == ["a"]
    assert [e["item"] for e in reports.of("item_finished")] == ["a"]


def test_stopped_at_a_step_an_item_is_neither_done_nor_failed_and_its_state_is_kept(tmp_path: Path) -> None:
    loops: list[Loop] = []
    item = item_of(tmp_path, "a")

    def one(item: Item) -> dict[str, torch.Tensor]:
        loops[0].stop()
        item.step(1, 9, torch.ones(1))
        raise AssertionError("it went on")

    reports = run(job_of([item]), one, loops.append)
    assert reports.of("item_finished") == reports.of("retrying") == []
    assert item.state.exists()
    assert item.handoff is not None
    assert not item.handoff.exists()


def test_stopped_while_failed_items_wait_they_are_not_tried_again(tmp_path: Path) -> None:
    loops: list[Loop] = []

    def one(item: Item) -> Any:
        loops[0].stop()
        raise ValueError(item.id)

    reports = run(job_of([item_of(tmp_path, "a")], retries=5), one, loops.append)
    assert len(reports.of("item_started")) == 1


def test_torch_is_set_up_before_the_stage_runs(tmp_path: Path) -> None:
    seen: dict[str, object] = {}

    def one(item: Item) -> dict[str, torch.Tensor]:
        seen["threads"] = torch.get_num_threads()
        # taken only where all weights are there: results would depend on the placement
        seen["fast"] = torch.backends.mha.get_fastpath_enabled()
        seen["inference"] = torch.is_inference_mode_enabled()
        return x(item)

    run(job_of([item_of(tmp_path, "a")], threads=3), one)
    assert seen == {"threads": 3, "fast": False, "inference": True}


def test_random_numbers_depend_on_the_key_alone(tmp_path: Path) -> None:
    drawn: dict[str, list[tuple[float, float, float]]] = {}

    def one(item: Item) -> dict[str, torch.Tensor]:
        numbers = (random.random(), float(np.random.rand()), float(torch.rand(1)))  # noqa: NPY002
        drawn.setdefault(item.id, []).append(numbers)
        return x(item)

    a, b = (item_of(tmp_path, name) for name in "ab")
    run(job_of([a, b]), one)
    run(job_of([b, a]), one)
    assert drawn["a"][0] == drawn["a"][1]
    assert drawn["b"][0] == drawn["b"][1]
    assert not set(drawn["a"][0]) & set(drawn["b"][0])


def test_a_device_that_torch_cannot_use_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BudgetError, match="PyTorch installed here has no support"):
        run(job_of([item_of(tmp_path, "a")], device="cuda:0"), x)


def test_a_stage_with_a_timeout_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from runner.worker import item_timer

    monkeypatch.setattr(item_timer, "HEARTBEAT", 0.01)
    monkeypatch.setattr(item_timer, "LATE", 0.0)
    reported = threading.Event()
    reports = Reports()

    def one(item: Item) -> dict[str, torch.Tensor]:
        assert reported.wait(30)
        return x(item)

    def listen(loop: Loop) -> None:
        def report(event: Event) -> None:
            reports(event)
            if isinstance(event, Stuck):
                reported.set()

        loop._report = report

    run(job_of([item_of(tmp_path, "a")], timeout=0.05), one, listen)
    kinds = [e["event"] for e in reports]
    assert "alive" in kinds[: kinds.index("stuck")]
    stuck = reports[kinds.index("stuck")]
    assert (stuck["item"], stuck["seconds"] > 0.05) == ("a", True)


def test_of_several_items_the_one_whose_timer_is_given_is_stuck(tmp_path: Path) -> None:
    reports = Reports()
    loop = Loop(job_of([item_of(tmp_path, name) for name in "ab"], timeout=1.0), reports)
    loop._environment = {}
    loop._group = [loop._item_run(item) for item in loop._job.items]
    loop._report_stuck(loop._group[0].timer)
    loop._report_stuck(loop._group[1].timer)
    assert [e["item"] for e in reports.of("stuck")] == ["a", "b"]
