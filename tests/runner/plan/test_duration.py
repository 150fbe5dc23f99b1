"""The expected time of stages: computed by hand, from measured runs, and where it is not known."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import weighty_plugin

from runner.cli.pipelines import open_pipeline
from runner.machine.timings import RUNS_KEPT, add_measured, measured, timing_key
from runner.plan.choose import plan_stage
from runner.plan.duration import START, duration_of, learn
from runner.plan.limits import Limits
from runner.work.models import resolve_models

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

    from runner.plan.stage_plan import StagePlan

WIDTH, DEPTH = 64, 6
PARAMETERS = (DEPTH + 1) * (WIDTH * WIDTH + WIDTH)
LIMITS = Limits("cpu", None, 1 << 40, cores=2, disk_read=1e6, measured={"float32": 1e6, "bfloat16": 1e5})
BOTH = ["first", "item"]


@pytest.fixture
def weighty(project: Project) -> Iterator[Project]:
    weighty_plugin.install(project, width=WIDTH, depth=DEPTH)
    with project.as_environment():
        yield project
    sys.modules.pop("weighty", None)  # its formula is this test's


def planned(
    project: Project, formula: str = "Activations(4096, tokens=10, passes=3)", **table: Any
) -> StagePlan:
    """The plan of a stage whose plugin has that formula, on a machine that computes 2e6 operations a second."""
    source = weighty_plugin.PLUGIN.replace("return params.takes * MIB", f"return {formula} #")
    sys.modules.pop("weighty", None)
    project.write("packages/weighty.py", source.replace("import Component", "import Activations, Component"))
    pipeline = open_pipeline(
        project.folder / "weighty.toml",
        [f"stage.run.{key}={value}" for key, value in table.items()],
    )
    (stage,) = pipeline.stages
    rated = replace(LIMITS, ram=None)
    return plan_stage(pipeline, stage, resolve_models(pipeline).shapes(stage), rated)


ONE = 2 * PARAMETERS * 10 * 3 / 2e6
"""Seconds of an item: two operations a parameter and token, three passes."""
LOADED = 4 * PARAMETERS / 1e6


def test_resident_weights_are_read_once_and_items_computed_one_by_one(weighty: Project) -> None:
    plan = planned(weighty)
    assert duration_of(plan, BOTH).seconds == pytest.approx(START + LOADED + 2 * ONE)
    assert duration_of(plan, BOTH[:1]).seconds == pytest.approx(START + LOADED + ONE)
    assert duration_of(plan, BOTH).basis == "a guess: neither a run nor `runner doctor` has measured it here"
    assert duration_of(plan, []).seconds == 0


def test_what_is_streamed_comes_each_pass_while_a_group_computes(weighty: Project) -> None:
    plan = planned(weighty, placement="stream", device_map='{"layers" = "disk"}')
    moved = 4 * DEPTH * (WIDTH * WIDTH + WIDTH)
    assert (plan.chosen.group, plan.chosen.components[0].read) == (2, moved)
    passes = 3 * moved / 1e6
    stays = LOADED - moved / 1e6
    assert duration_of(plan, BOTH).seconds == pytest.approx(START + stays + max(2 * ONE, passes))
    alone = planned(weighty, placement="device-map", device_map='{"layers" = "disk"}')
    assert duration_of(alone, BOTH).seconds == pytest.approx(START + stays + 2 * ONE + 2 * passes)


def test_operations_that_a_formula_tells_count_as_they_are(weighty: Project) -> None:
    plan = planned(weighty, "Activations(4096, operations=5e6)")
    assert duration_of(plan, BOTH).seconds == pytest.approx(START + LOADED + 2 * 2.5)


def test_without_operations_the_first_run_teaches_and_larger_items_take_longer(weighty: Project) -> None:
    formula = "Activations(1000 if params.prompt == 'first' else 3000)"
    plan = planned(weighty, formula)
    assert duration_of(plan, BOTH).seconds is None
    assert duration_of(plan, BOTH).basis == "not known before its first run"
    learn(plan, {"first": 2.0}, beside=LOADED + 1.5)
    assert duration_of(plan, BOTH).seconds == pytest.approx(1.5 + LOADED + 2.0 + 6.0)
    assert duration_of(plan, BOTH).basis == "from 1 run here"


def test_runs_correct_the_speed_and_one_on_a_busy_machine_does_not_count_for_much(weighty: Project) -> None:
    plan = planned(weighty)
    for seconds in (2 * ONE, 2 * ONE, 40 * ONE):
        learn(plan, {"first": seconds}, beside=None)
    corrected = duration_of(plan, BOTH)
    assert corrected.seconds == pytest.approx(START + LOADED + 4 * ONE)
    assert corrected.basis == "from 3 runs here"
    learn(planned(weighty, dtype='"bfloat16"'), {"first": 50.0}, beside=None)
    assert duration_of(plan, BOTH) == corrected, "another dtype has its own speed"


def test_the_oldest_runs_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path))
    key = timing_key("cpu", 2, "a.b", "float32", "seconds by item")
    for _ in range(RUNS_KEPT):
        add_measured(key, 100.0)
    for _ in range(RUNS_KEPT):
        add_measured(key, 1.0)
    found = measured(key)
    assert found is not None
    assert (found.seconds, found.runs) == (1.0, RUNS_KEPT)
    assert measured(timing_key("cpu", 1, "a.b", "float32", "seconds by item")) is None


@pytest.mark.parametrize(
    ("formula", "more"), [("WIDTH * sizes.itemsize", 2 * WIDTH), ("Activations(8, tokens=10, passes=3)", 0)]
)
def test_float32_is_offered_where_half_precision_is_slow(weighty: Project, formula: str, more: int) -> None:
    plan = planned(weighty, formula.replace("WIDTH", str(WIDTH)), dtype='"bfloat16"')
    assert plan.faster is not None
    assert plan.faster.part == pytest.approx(0.1)
    assert plan.faster.more == 2 * PARAMETERS + more
    assert plan.faster.time == "a tenth of the time"
    assert planned(weighty, dtype='"float32"').faster is None


def test_a_plan_says_what_it_knows_and_a_run_teaches_the_rest(toy: Project) -> None:
    before = json.loads(toy.invoke("plan", "toy.toml", "--json").stdout)
    assert before["seconds"] is None
    assert [stage["seconds"] for stage in before["stages"]] == [None, None]
    planned = toy.invoke("plan", "toy.toml").stdout
    assert "time: not known before its first run" in planned
    assert "in all: about 0.0 s, and make and write, whose time is not known" in planned

    assert toy.runner("run", "toy.toml").code == 0
    done = json.loads(toy.invoke("plan", "toy.toml", "--json").stdout)
    assert (done["seconds"], [stage["seconds"] for stage in done["stages"]]) == (0, [0, 0])
    after = json.loads(toy.invoke("run", "toy.toml", "--dry-run", "--prompt", "new", "--json").stdout)
    assert after["seconds"] == sum(stage["seconds"] for stage in after["stages"]) > 0
    assert {stage["seconds_from"] for stage in after["stages"]} == {"from 1 run here"}
