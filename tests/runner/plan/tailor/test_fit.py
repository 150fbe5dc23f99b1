"""The ladder: the mildest changes that fit, in its order, and none that turned out needless."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from runner.errors import BudgetError
from runner.manifest.load import load
from runner.plan.pipeline import bind
from runner.plan.tailor import fit as fitting
from runner.plan.tailor.knobs import ladder, lowered
from runner.plugins import discover

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from project import Project

    from runner.plan.pipeline import Pipeline
    from runner.plan.stage import PipelineStage

PLUGIN = """
from typing import Annotated, Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Component, Stage, Text, hookimpl

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
        Stage("ladder.run", "ladder:start", params="ladder:Params", outputs=(Text("said"), Text("aside", optional=True)),
              components=(Component("net", "torch:Net"),))
    ]
"""
MANIFEST = """
version = 1
name = "x"
model = { source = "./model" }
[[stage]]
name = "one"
uses = "ladder.run"
MORE
[batch]
prompts = ["a"]
"""


@pytest.fixture
def opened(project: Project) -> Iterator[Callable[[str], Pipeline]]:
    """A pipeline of one stage, with more lines in its table."""
    project.plugin("ladder", PLUGIN)
    with project.as_environment():
        yield lambda lines="": bind(
            load(project.write("x.toml", MANIFEST.replace("MORE", lines))), discover()
        )


def fit(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, fits: Callable[[dict[str, Any]], bool]
) -> list[Any]:
    """What is changed, where what fits is told by the stage's settings and not by a planner."""

    def settings(stage: PipelineStage) -> dict[str, Any]:
        table = stage.table
        return {"tile": "auto", "cut": 1, **table.with_, "dtype": table.dtype, "placement": table.placement}

    def planned(pipeline: Pipeline, n: int, _shapes: Any) -> tuple[Any, str]:
        return SimpleNamespace(), "" if fits(settings(pipeline.stages[n])) else "it does not fit"

    monkeypatch.setattr(fitting, "try_plan", planned)
    fitted = fitting.fit(pipeline, [[]])
    return [(change.key, change.old, change.new) for change in fitted.changes]


TILE, CUT, DTYPE = "stage.one.with.tile", "stage.one.with.cut", "stage.one.dtype"


@pytest.mark.parametrize(
    ("fits", "changes"),
    [
        (lambda s: True, []),
        (lambda s: s["tile"] in (512, 256), [(TILE, "auto", 512)]),
        (lambda s: s["tile"] == 256, [(TILE, "auto", 256)]),
        (lambda s: s["cut"] == 4, [(CUT, 1, 4)]),
        (lambda s: s["cut"] == 4 and s["tile"] != "auto", [(TILE, "auto", 512), (CUT, 1, 4)]),
        (lambda s: s["dtype"] == "bfloat16", [(DTYPE, "float32", "bfloat16")]),
        (
            lambda s: s["dtype"] == "bfloat16" and s["tile"] != "auto",
            [(TILE, "auto", 512), (DTYPE, "float32", "bfloat16")],
        ),
    ],
)
def test_the_mildest_that_fits(
    opened: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch, fits: Any, changes: Any
) -> None:
    assert fit(opened(), monkeypatch, fits) == changes


def test_values_that_are_lower_already_and_those_that_the_plugin_refuses_are_no_steps(
    opened: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = opened('dtype = "bfloat16"\nwith = { tile = 512 }')
    assert [(c.key, c.new) for c in ladder(pipeline.stages[0])] == [(TILE, 256), (CUT, 4)]
    tried: list[Any] = []
    with pytest.raises(BudgetError):
        fit(opened(), monkeypatch, lambda s: bool(tried.append(s["tile"])))
    assert set(tried) == {"auto", 512, 256}, "5000 is no value of this parameter"


def test_a_placement_gives_way_first_and_comes_back_where_another_change_is_enough(
    opened: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = opened('placement = "resident"')
    placed = ("stage.one.placement", "resident", "auto")
    assert fit(pipeline, monkeypatch, lambda s: s["placement"] == "auto") == [placed]
    assert fit(pipeline, monkeypatch, lambda s: s["tile"] == 256) == [(TILE, "auto", 256)]
    both = fit(pipeline, monkeypatch, lambda s: s["tile"] == 512 and s["placement"] == "auto")
    assert both == [placed, (TILE, "auto", 512)]


def test_a_map_of_ones_own_is_taken_out(
    opened: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = opened('placement = "device-map"\n[stage.device_map]\n"" = "cpu"')
    monkeypatch.setattr(
        fitting, "try_plan", lambda p, n, _: ({}, "" if not p.stages[n].table.device_map else "no")
    )
    fitted = fitting.fit(pipeline, [[]])
    assert [change.key for change in fitted.changes] == ["stage.one.device_map"]
    assert "device_map" not in fitted.manifest.text


def test_what_does_not_fit_however_low_is_told_with_what_was_lowered(
    opened: Callable[..., Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BudgetError) as refused:
        fit(opened(), monkeypatch, lambda _: False)
    assert str(refused.value) == (
        "it does not fit\n"
        "  (lowered already: stage.one.with.tile 256, stage.one.with.cut 4, stage.one.dtype bfloat16)"
    )


def test_each_change_says_what_it_costs(opened: Callable[..., Pipeline]) -> None:
    costs = {change.key: change.cost for change in ladder(opened('placement = "resident"').stages[0])}
    assert costs == {
        "stage.one.placement": "where weights live is chosen anew; no output changes",
        TILE: "seams",
        CUT: "another output",
        DTYPE: "other low bits in said",
    }


def test_what_a_stage_was_lowered_to(opened: Callable[..., Pipeline]) -> None:
    assert lowered(opened().stages[0]) == []
    pipeline = opened('placement = "resident"\n[stage.with]\ntile = 512\ncut = 1\n[stage.device_map]\n"" = 0')
    assert lowered(pipeline.stages[0]) == ["a device_map", 'placement = "resident"', "tile = 512"]
