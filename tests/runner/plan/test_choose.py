"""The chosen placement, the lower ones, and the message where nothing fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hand_built import MIB, card, component, cpu, pipeline

from runner.accelerator.overheads import ESTIMATES
from runner.errors import BudgetError
from runner.manifest.problems import ManifestError
from runner.placements import DEVICE_MAP, MODEL_OFFLOAD, RESIDENT, STREAM
from runner.plan.choose import plan_stage

if TYPE_CHECKING:
    from project import Project

    from runner.plan.limits import Limits
    from runner.plan.stage_plan import StagePlan

KEPT = "freed memory kept for what comes next"


def plan(project: Project, limits: Limits, stage: str = "", top: str = "", **component_: object) -> StagePlan:
    opened = pipeline(project, stage, top=top)
    with project.as_environment():
        return plan_stage(opened, opened.stages[0], [component(**component_)], limits)  # type: ignore[arg-type]


def stays(planned: StagePlan) -> int:
    return sum(placed.resident for placed in planned.chosen.components) // MIB


def test_the_fastest_that_fits(project: Project) -> None:
    assert plan(project, cpu(400)).chosen.placement == RESIDENT
    assert plan(project, cpu(274)).chosen.placement == RESIDENT
    streamed = plan(project, cpu(273), weights=(60, 40))
    assert not streamed.chosen.fits(cpu(273))
    assert plan(project, cpu(600), weights=(60, 40)).chosen.placement == STREAM


def test_freed_memory_is_kept_where_there_is_room(project: Project) -> None:
    assert plan(project, cpu(324)).chosen.retains_freed_memory
    assert not plan(project, cpu(323)).chosen.retains_freed_memory
    assert not plan(
        project, cpu(400), "with = { peak = 50, suspended = 6 }\nplacement = 'stream'"
    ).chosen.retains_freed_memory


def test_without_a_budget_streaming_is_to_hold_little(project: Project) -> None:
    asked = "placement = 'stream'"
    assert stays(plan(project, cpu(4000), asked)) == 4
    assert stays(plan(project, cpu(4000), asked, "budget = { device = 'cpu', ram = '4000MiB' }")) == 44
    # the device's own budget is what counts
    assert stays(plan(project, card(4000, 4000), asked, "budget = { ram = '4000MiB' }")) == 4
    assert stays(plan(project, card(4000, 4000), asked, "budget = { vram = '4000MiB' }")) == 44
    assert stays(plan(project, cpu(4000), asked, "budget = { vram = '4000MiB' }")) == 4


def test_the_allocator_may_have_what_the_context_leaves(project: Project) -> None:
    assert plan(project, card(4000, 4000)).allocatable == 4000 * MIB - ESTIMATES["cuda"].context
    assert plan(project, card(100, 4000)).allocatable == 0
    assert plan(project, cpu(4000)).allocatable is None
    assert plan(project, card(None, 4000)).allocatable is None


def test_lower_placements_hold_less_and_less(project: Project) -> None:
    planned = plan(project, card(4000, 4000))
    held = [planned.chosen.vram, *(candidate.vram for candidate in planned.lower)]
    assert planned.chosen.placement == RESIDENT
    assert held == sorted((size for size in held if size), reverse=True)
    assert len(set(held)) == len(held) > 2
    least = plan(project, card(4000, 4000), "placement = 'sequential-offload'")
    assert all((other.vram or 0) < (least.chosen.vram or 0) for other in least.lower)
    on_cpu = plan(project, cpu(2000))
    assert on_cpu.chosen.retains_freed_memory
    # the same with less kept is no other placement
    assert all(
        (c.placements, c.group) != (on_cpu.chosen.placements, on_cpu.chosen.group) for c in on_cpu.lower
    )
    assert on_cpu.lower[-1].placement == STREAM
    assert on_cpu.lower[-1].components[0].resident == 4 * MIB


def test_a_placement_that_is_set_is_used_or_refused(project: Project) -> None:
    assert plan(project, cpu(4000), "placement = 'device-map'").chosen.placement == DEVICE_MAP
    with pytest.raises(
        BudgetError, match="placement 'group-offload' is not available on the CPU; there are: resident"
    ):
        plan(project, cpu(4000), "placement = 'group-offload'")
    # of a single component: it is alone in its turn
    alone = plan(project, card(4000, 4000), f"placement = '{MODEL_OFFLOAD}'")
    assert alone.chosen.placement == RESIDENT
    with pytest.raises(BudgetError, match="on the CPU"):
        plan(project, cpu(4000), f"placement = '{MODEL_OFFLOAD}'")


def test_what_does_not_fit_is_refused_with_the_arithmetic(project: Project) -> None:
    planned = plan(project, cpu(200))
    with pytest.raises(BudgetError) as refused:
        planned.check()
    message = str(refused.value)
    lines = [line.strip() for line in message.splitlines()]
    assert lines[0] == "stage 'run' does not fit, as device-map (which needs least):"
    assert "40.0 MiB of RAM are missing: it needs 240.0 MiB, and may take 200.0 MiB" in lines[1]
    for size, part in (
        ("180.0 MiB", "Python and libraries"),
        ("4.0 MiB", "weights that stay"),
        ("6.0 MiB", "weights in passing"),
        ("50.0 MiB", "activations"),
    ):
        assert any(line.split("  ")[0] == size and part in line for line in lines), message
    plan(project, cpu(400)).check()


def test_remedies_are_those_that_would_fit(project: Project) -> None:
    misfit = plan(project, cpu(220)).misfit
    # a device map needs 240: with activations of 20 it is 210
    assert "would fit: peak = 20 in [stage.with]" in misfit
    assert "peak = 1 in" not in misfit  # the mildest alone
    assert 'would fit: dtype = "bfloat16"' in misfit  # 180 + 25 + 2 + 3 = 210
    assert "would fit: a budget of ram = " in misfit
    less = plan(project, cpu(200)).misfit
    assert "peak = 1 in" in less  # 191
    assert "bfloat16" not in less
    none = plan(project, cpu(190)).misfit
    assert "peak" not in none
    assert "bfloat16" not in none
    elsewhere = plan(project, cpu(280), "placement = 'stream'\nwith = { peak = 50 }").misfit  # 286
    assert 'placement = "auto", which takes resident' in elsewhere


def test_the_greater_lack_is_not_hidden_by_the_other(project: Project) -> None:
    misfit = plan(project, card(500, 600)).misfit
    assert "of VRAM are missing" in misfit
    assert "of RAM are missing" in misfit
    assert "budget of vram = " in misfit
    assert "and ram = " in misfit
    alone = plan(project, card(500, 4000)).misfit
    assert "budget of vram = " in alone
    assert "and ram" not in alone


def test_a_map_names_what_is_there(project: Project) -> None:
    with pytest.raises(ManifestError, match=r"no weight of formula\.run lies under 'layer'"):
        plan(project, cpu(400), "device_map = { layer = 'disk' }")
    assert plan(project, cpu(400), "device_map = { layers = 'disk' }").chosen.placement == DEVICE_MAP
    assert plan(project, cpu(400), "device_map = { '' = 'disk' }").chosen.components[0].read == 44 * MIB
    with pytest.raises(BudgetError, match="with a device_map"):
        plan(project, cpu(400), "placement = 'resident'\ndevice_map = { layers = 'disk' }")


def test_fewer_items_than_can_be_kept_for_only_where_it_hides_the_transfer(project: Project) -> None:
    # 390 of 350: kept, groups of three (18 each); not kept, of four
    slow = "with = { peak = 50, suspended = 6, tokens = 1000, passes = 2 }"
    assert not plan(project, cpu(400, disk_read=1e6), slow, weights=(600, 400)).chosen.retains_freed_memory
