"""The manifest's device map: the bytes that it moves, as planned and as measured in a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import weighty_plugin
from safetensors.torch import load_file

from runner.plan.device_map import matches

if TYPE_CHECKING:
    from project import Project

WEIGHTS = ["text_model.layers.0.norm.weight", "text_model.layers.1.norm.weight", "text_model.head.weight"]


def test_names_are_those_of_files_or_the_only_ones_that_end_so() -> None:
    assert matches("", WEIGHTS) == [""]
    assert matches("layers", WEIGHTS) == ["layers"]
    assert matches("text_model.layers.0", WEIGHTS) == ["text_model.layers.0"]
    assert matches("head.weight", WEIGHTS) == ["head.weight"]
    assert matches("norm", WEIGHTS) == ["text_model.layers.0.norm", "text_model.layers.1.norm"]
    assert matches("1.norm", WEIGHTS) == ["text_model.layers.1.norm"]
    assert matches("lay", WEIGHTS) == []


LAYER = 1024 * 1024 * 4 + 1024 * 4  # bytes


@pytest.mark.parametrize(
    ("placement", "device_map", "moves", "passing"),
    [
        ("device-map", '"" = "disk"', 7, LAYER),
        ("stream", '"" = "disk"', 7, 3 * LAYER + (32 << 20)),  # two slots, two reads, and a layer
        ("stream", '"first" = "disk"', 1, LAYER),
        ("stream", '"layers" = "disk", "layers.2" = "cpu"', 5, 2 * LAYER + (32 << 20)),
        ("device-map", '"first" = "cuda:0"', 0, 0),
    ],
)
def test_what_a_map_moves(
    project: Project, placement: str, device_map: str, moves: int, passing: int
) -> None:
    weighty_plugin.install(project, width=1024, depth=6)
    settings = [f"stage.run.placement={placement}", f"stage.run.device_map={{ {device_map} }}"]
    words = [word for setting in settings for word in ("--set", setting)]

    outcome = project.invoke("plan", "weighty.toml", "--json", *words)
    assert outcome.code == 0, outcome
    stage = json.loads(outcome.stdout)["stages"][-1]
    assert stage["components"][0]["moved"] == stage["components"][0]["read"] == moves * LAYER
    assert stage["parts"]["ram"]["weights that stay"] == (7 - moves) * LAYER
    assert stage["parts"]["ram"]["weights in passing"] == passing


@pytest.mark.parametrize("placement", ["device-map", "stream"])
def test_a_run_holds_what_was_predicted_and_makes_the_same(project: Project, placement: str) -> None:
    weighty_plugin.install(project, width=2048, depth=4)  # 80 MiB
    made = {}
    for sets in ([], [f"stage.run.placement={placement}", 'stage.run.device_map={ "" = "disk" }']):
        words = [word for setting in sets for word in ("--set", setting)]
        outcome = project.runner("run", "weighty.toml", "--fresh", "--json", *words)
        assert outcome.code == 0, outcome
        events = [json.loads(line) for line in outcome.stdout.splitlines()]
        (ended,) = (event for event in events if event["event"] == "stage_finished")
        assert ended["measured"]["ram"] <= ended["predicted"]["ram"]
        files = sorted(project.folder.glob("runs/*/handoff/run/*.safetensors"))
        made[bool(sets)] = [load_file(file)["y"].tolist() for file in files]
    assert made[True] == made[False] != []
