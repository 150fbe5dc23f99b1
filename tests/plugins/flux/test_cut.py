"""Prompts that are cut are reported, whoever asks and whenever their embeddings were made; whole ones are not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from checkpoints import make_flux
from pages import data_of
from short_flux import short_flux

from runner.files.provenance import read_provenance

if TYPE_CHECKING:
    from project import Outcome, Project

LONGEST = " ".join(["a large purple heart on a yellow background"] * 12)
ITEMS = f"""\
[[item]]
id = "whole"
prompt = "a red circle"
[[item]]
id = "long"
prompt = "a red circle to the left of a blue square on a white background"
[[item]]
id = "other"
prompt = "{LONGEST}"
prompt_2 = "a red circle"
true_cfg_scale = 2.0
negative_prompt = "a red circle"
negative_prompt_2 = "a large yellow star above a small green circle on a black background"
[[item]]
id = "clip"
prompt = "{LONGEST} again"
max_sequence_length = 512
"""
MANIFEST = short_flux("cut", "./model", 12, ITEMS)


def warnings(outcome: Outcome) -> list[tuple[Any, ...]]:
    return [(e["stage"], e["item"], e["kind"], e["details"].get("field")) for e in outcome.of("warning")]


def test_what_is_cut_is_reported_by_item_and_field(project: Project) -> None:
    make_flux(project.folder / "model")
    project.write("cut.toml", MANIFEST)

    outcome = project.runner("run", "cut.toml", "--json")

    assert outcome.code == 0, outcome
    cut = [("encode", "long", "prompt_cut", "prompt"), ("encode", "other", "prompt_cut", "negative_prompt_2")]
    # that CLIP reads no more than 77 is said once, for two items
    assert sorted(warnings(outcome), key=str) == sorted([*cut, ("encode", None, "note", None)], key=str)
    (long,) = [e for e in outcome.of("warning") if e["item"] == "long"]
    assert long["details"]["limit"] == 12 < long["details"]["tokens"]
    assert long["details"]["words"] == "a white background"
    assert "max_sequence_length is 12: cut off is" in long["message"]
    assert "warning: encode: prompt cut for 2 items: long, other" in outcome.stderr
    # the morning after
    shown = project.invoke("runs", "show", "cut")
    assert f"warning: encode long: {long['message']}" in shown.stdout
    (run,) = json.loads(project.invoke("runs", "show", "cut", "--json").stdout)["runs"]
    assert (run["warned"], {w["item"] for w in run["warnings"]}) == (3, {"long", "other", None})
    (run,) = data_of(project.folder / "runs/cut/report.html")["runs"]
    assert json.dumps(long["message"]) in json.dumps(run["warnings"])
    # and of the picture itself
    (picture,) = (project.folder / "runs/cut/outputs").glob("long-*.png")
    provenance = read_provenance(picture)
    assert provenance is not None
    assert provenance["lineage"]["encode"]["warnings"][0]["details"] == long["details"]

    again = project.runner("run", "cut.toml", "--json", "--set", "stage.diffuse.with.steps=2")
    assert [e["stage"] for e in again.of("stage_started")] == ["diffuse", "decode"], again
    assert sorted(warnings(again)) == sorted(cut)
