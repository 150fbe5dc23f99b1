"""Checks that run stages: each fault is found in a stage that has it, and none in one without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import faulty_plugin
import weighty_plugin

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

MANIFEST = """\
version = 1
name = "nets"
[model]
source = "./model"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "net"
uses = "netted.net"
[[stage]]
name = "keeping"
uses = "netted.keeping"
[[item]]
id = "one"
[[item]]
id = "two"
[[item]]
id = "three"
"""


def statuses(found: dict[str, Any], stage: str) -> dict[str, str]:
    return {check: verdict["status"] for check, verdict in found[stage].items()}


def test_each_fault_is_found_and_only_that(project: Project, check: Callable[..., Any]) -> None:
    faulty_plugin.install(project)

    outcome, found = check("faulty")

    assert outcome.code == 4, outcome
    run_checks = ("runs", "outputs", "repeats", "interleaves", "streams", "resumes", "memory", "finite")
    well = ("params", "formula", *run_checks)
    assert statuses(found, "faulty.well") == dict.fromkeys(well, "ok")
    assert found["faulty.well"]["resumes"]["message"] == "bit-identical, resumed from step 5"

    shared = found["faulty.shared"]
    assert {c for c, s in statuses(found, "faulty.shared").items() if s != "ok"} == {
        "interleaves",
        "resumes",
        "memory",
    }
    assert "'x' of item 'one' differs when another item is made in turns" in shared["interleaves"]["message"]
    assert "'x' of item 'one' differs when it is resumed from step 5" in shared["resumes"]["message"]
    assert shared["memory"]["message"] == (
        "predicted: 16.0 KiB; measured: 32.0 KiB of tensors, peak at aten.mul.Tensor; 16.0 KiB too little"
    )

    assert statuses(found, "faulty.random")["repeats"] == "broken"
    assert "differs when it is made again" in found["faulty.random"]["repeats"]["message"]
    lying = found["faulty.lying"]["outputs"]
    assert (lying["status"], lying["message"]) == ("broken", "'x' has shape (64,), declared is ('N', 'N')")
    assert "memory" not in found["faulty.lying"]
    dying = found["faulty.dying"]["runs"]
    assert (dying["message"], dying["log"]) == ("its process exited: 3", "farewell")
    assert "cannot import 'faulty_walks:start_nowhere'" in found["faulty.absent"]["runs"]["message"]

    greedy = found["faulty.greedy"]["memory"]
    assert greedy["status"] == "broken"
    assert greedy["message"].startswith("predicted: nothing, without a formula; measured: 0 B of tensors, 6")
    for stage, words in (
        ("choosy", "synthetic inputs are refused: ValueError: only left or right"),
        ("narrow", "its parameters or inputs are refused"),
        ("sound", "the input 'sound' is a .wav file"),
        ("net", "it needs a model: it loads net"),
    ):
        verdict = found[f"faulty.{stage}"]["runs"]
        assert verdict["status"] == "not run"
        assert words in verdict["message"]
        assert "--manifest" in verdict["advice"]


def test_stages_with_a_model_are_checked_on_a_manifest(project: Project, check: Callable[..., Any]) -> None:
    weighty_plugin.install(project, width=32, depth=4)
    faulty_plugin.install(project)
    project.write("nets.toml", MANIFEST)

    outcome, found = check("netted", "--manifest", "nets.toml")

    assert found["nets.toml"]["runs"]["message"] == "2 items"
    assert set(statuses(found, "netted.net").values()) == {"ok"}
    assert found["netted.net"]["streams"]["message"] == "bit-identical"
    assert {c for c, s in statuses(found, "netted.keeping").items() if s != "ok"} == {"streams"}
    assert "outside the call of its own block or layer" in found["netted.keeping"]["streams"]["message"]
    assert outcome.code == 4


def test_a_manifest_that_does_not_run(project: Project, check: Callable[..., Any]) -> None:
    faulty_plugin.install(project)
    project.write("nets.toml", MANIFEST.replace("./model", "./nowhere"))
    outcome, found = check("netted", "--manifest", "nets.toml")
    assert outcome.code == 4
    assert "nowhere" in found["nets.toml"]["runs"]["message"]
    assert found["netted.net"]["runs"]["status"] == "not run"
    assert found["netted.net"]["runs"]["message"] == "nets.toml does not run"
