"""The mildest changes that make a stage fit, in their order, and none that turned out needless."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from hand_built import component

from runner.errors import BudgetError
from runner.manifest.load import load
from runner.pipeline.binding import bind
from runner.plugins import discover
from runner.tailor.changes import fallback_order, lowered
from runner.tailor.fit import fit as fitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from project import Project

    from runner.pipeline.binding import Pipeline

PLUGIN = """
from typing import Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Component, Measure, Stage, Text, hookimpl

RUNNER_API = 1


class Params(BaseModel):
    model_config = ConfigDict(extra="forbid")
    prompt: str
    tile: Literal["auto"] | Annotated[int, Field(le=999)] = Field(
        "auto", json_schema_extra={"less_memory": [5000, 512, 256], "less_memory_costs": "seams"}
    )
    slices: int = Field(1, alias="cut", json_schema_extra={"less_memory": [4]})


@hookimpl
def runner_stages():
    return [
        Stage("lowering.run", "lowering:start", params="lowering:Params", outputs=(Text("said"), Text("aside", optional=True)),
              components=(Component("net", "torch:Net"),), memory="lowering:memory")
    ]


def memory(params, sizes):
    tile, cut, dtype = params.tile, params.slices, sizes.dtype
    unknown = Measure("lowering:never", tile)
    takes = TAKES
    return takes if isinstance(takes, Measure) else takes << 20
"""
MANIFEST = """
version = 1
name = "x"
model = { source = "./model" }
budget = { device = "cpu", ram = "400MiB" }
[[stage]]
name = "one"
uses = "lowering.run"
MORE
[batch]
prompts = ["a"]
"""


# of the 400 MiB the process takes 180 (45 more with accelerate's hooks) and the component 104: a head and four
# blocks of 25, of which a device map holds as many as there is room for
SHAPES = [[component(weights=(15, 10))]]


@pytest.fixture
def opened(project: Project) -> Iterator[Callable[..., Pipeline]]:
    """A pipeline of one stage, with more lines in its table; its items take so many MiB, as a formula says."""

    def pipeline(lines: str = "", takes: str = "50") -> Pipeline:
        project.plugin("lowering", PLUGIN.replace("TAKES", takes))
        project.write("model/model_index.json", "{}")
        sys.modules.pop("lowering", None)
        return bind(load(project.write("x.toml", MANIFEST.replace("MORE", lines))), discover())

    with project.as_environment():
        yield pipeline


def changes(pipeline: Pipeline) -> list[Any]:
    return [(change.key, change.old, change.new) for change in fitted(pipeline, SHAPES).changes]


TILE, CUT, DTYPE = "stage.one.with.tile", "stage.one.with.cut", "stage.one.dtype"
PLACED = ("stage.one.placement", "resident", "auto")


def unless(condition: str, takes: int = 50) -> str:
    """A formula by which the stage fits nowhere unless that is so."""
    return f"{takes} if {condition} else 1000"


@pytest.mark.parametrize(
    ("takes", "made"),
    [
        ("50", []),
        (unless("tile in (512, 256)"), [(TILE, "auto", 512)]),
        (unless("tile == 256"), [(TILE, "auto", 256)]),
        (unless("cut == 4"), [(CUT, 1, 4)]),
        (unless("cut == 4 and tile != 'auto'"), [(TILE, "auto", 512), (CUT, 1, 4)]),
        (unless("dtype == 'bfloat16'"), [(DTYPE, "float32", "bfloat16")]),
        (
            unless("dtype == 'bfloat16' and tile != 'auto'"),
            [(TILE, "auto", 512), (DTYPE, "float32", "bfloat16")],
        ),
    ],
)
def test_the_mildest_that_fits(opened: Callable[..., Pipeline], takes: str, made: list[Any]) -> None:
    assert changes(opened(takes=takes)) == made


def test_a_change_after_which_nothing_is_known_is_none(opened: Callable[..., Pipeline]) -> None:
    """It could not be measured: the plan goes without what an item takes, and would fit."""
    takes = "unknown if tile == 512 else 50 if tile == 256 else 1000"
    assert changes(opened(takes=takes)) == [(TILE, "auto", 256)]
    assert changes(opened(takes="unknown")) == []


def test_values_that_are_lower_already_and_those_that_the_plugin_refuses_are_no_steps(
    opened: Callable[..., Pipeline],
) -> None:
    pipeline = opened('dtype = "bfloat16"\nwith = { tile = 512 }')
    assert [(c.key, c.new) for c in fallback_order(pipeline.stages[0])] == [(TILE, 256), (CUT, 4)]
    # 5000 is no value of this parameter
    assert changes(opened(takes=unless("tile != 'auto'"))) == [(TILE, "auto", 512)]


def test_a_placement_gives_way_first_and_comes_back_where_another_change_is_enough(
    opened: Callable[..., Pipeline],
) -> None:
    resident = 'placement = "resident"'
    # 120 and 284 are more than 400; with two blocks on the disk it fits
    assert changes(opened(resident, "120")) == [PLACED]
    assert changes(opened(resident, unless("tile == 256"))) == [(TILE, "auto", 256)]
    assert changes(opened(resident, unless("tile == 512", 120))) == [PLACED, (TILE, "auto", 512)]


def test_a_map_of_ones_own_is_taken_out(opened: Callable[..., Pipeline]) -> None:
    pipeline = opened('placement = "device-map"\n[stage.device_map]\n"" = "cpu"', "120")
    found = fitted(pipeline, SHAPES)
    assert [change.key for change in found.changes] == ["stage.one.device_map"]
    assert "device_map" not in found.manifest.text
    assert [plan.chosen.placement for plan in found.plans] == ["device-map"]


def test_the_message_of_what_does_not_fit_lists_what_was_lowered(
    opened: Callable[..., Pipeline],
) -> None:
    with pytest.raises(BudgetError) as refused:
        fitted(opened(takes="1000"), SHAPES)
    first, *_, last = str(refused.value).splitlines()
    assert first == "stage 'one' does not fit, as device-map (which needs least):"
    assert last == (
        "  (lowered already: stage.one.with.tile 256, stage.one.with.cut 4, stage.one.dtype bfloat16)"
    )


def test_each_change_says_what_it_costs(opened: Callable[..., Pipeline]) -> None:
    costs = {change.key: change.cost for change in fallback_order(opened('placement = "resident"').stages[0])}
    assert costs == {
        "stage.one.placement": "the placement is chosen anew; no output changes",
        TILE: "seams",
        CUT: "another output",
        DTYPE: "other low bits in said",
    }


def test_what_a_stage_was_lowered_to(opened: Callable[..., Pipeline]) -> None:
    assert lowered(opened().stages[0]) == []
    pipeline = opened('placement = "resident"\n[stage.with]\ntile = 512\ncut = 1\n[stage.device_map]\n"" = 0')
    assert lowered(pipeline.stages[0]) == ["a device_map", 'placement = "resident"', "tile = 512"]
