"""Workers that run out of memory: ended within a second, tried again lower, reported with their figures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import weighty_plugin
from project import Project

if TYPE_CHECKING:
    from project import Outcome

RESIDENT = 165 << 20  # bytes of the plugin's weights


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("weighty"))
    weighty_plugin.install(project)
    return project


@pytest.fixture(scope="module")
def undisturbed(installed: Project) -> set[bytes]:
    """The tensors of a run in which nothing runs out."""
    assert fresh(installed).code == 0
    return outputs(installed)


@pytest.fixture
def weighty(installed: Project) -> Project:
    """A project that nothing was run in, with a model that is hashed."""
    shutil.rmtree(installed.folder / "runs", ignore_errors=True)
    for flag in (installed.folder / "flags").iterdir():
        flag.unlink()
    return installed


def outputs(project: Project) -> set[bytes]:
    """The tensors that the runs left, without the metadata around them."""
    from safetensors.torch import load_file

    return {
        load_file(file)["y"].numpy().tobytes()
        for file in (project.folder / "runs/weighty/handoff/run").glob("*.safetensors")
    }


def fresh(project: Project, *settings: str) -> Outcome:
    sets = [word for setting in settings for word in ("--set", setting)]
    return project.runner("run", "weighty.toml", "--json", "--fresh", *sets)


def test_predicted_beside_measured(weighty: Project) -> None:
    outcome = fresh(weighty, "item.item.takes=80")
    assert outcome.code == 0, outcome
    (stage,) = outcome.of("stage_finished")
    measured, predicted = stage["measured"]["ram"], stage["predicted"]["ram"]
    assert predicted > RESIDENT + (80 << 20)
    assert predicted == outcome.of("stage_started")[0]["predicted"]["ram"]
    assert 0.97 * measured < predicted < 1.10 * measured
    assert stage["predicted"]["vram"] is stage["measured"]["vram"] is None
    assert f"(predicted {predicted / 2**20:.1f} MiB)" in outcome.stderr


@pytest.mark.parametrize("how", ["error", "allocate", "grow"])
def test_one_that_runs_out_once_goes_on_with_a_placement_that_holds_less(
    undisturbed: set[bytes], weighty: Project, how: str
) -> None:
    outcome = fresh(weighty, f"item.item.behave={how}")
    assert outcome.code == 0, outcome
    (reported,) = outcome.of("out_of_memory")
    assert (reported["placement"], reported["next"]) == ("resident", "stream")
    assert reported["measured"]["ram"] > reported["predicted"]["ram"] - (40 << 20)
    done = [(e["item"], e["status"]) for e in outcome.of("item_finished")]
    assert done == [("first", "done"), ("item", "done")], "nothing is done twice"
    assert outputs(weighty) == undisturbed
    journal = (weighty.folder / "runs/weighty/journal.jsonl").read_text()
    assert '"out_of_memory"' in journal


def test_fail_stops_at_once(weighty: Project) -> None:
    outcome = fresh(weighty, "item.item.behave=error", "run.on_oom=fail")
    assert outcome.code == 5, outcome
    assert [e["next"] for e in outcome.of("out_of_memory")] == [None]
    assert "out of memory: tried to allocate more than there is" in outcome.stderr


def test_without_weights_a_fresh_process_is_tried_once(weighty: Project) -> None:
    bare = ["stage.run.uses=weighty.bare", "item.item.behave=error"]
    assert fresh(weighty, *bare).code == 0
    (weighty.folder / "flags/item").unlink()
    outcome = fresh(weighty, *bare, "item.item.times=9")
    assert outcome.code == 5, outcome
    assert [e["next"] for e in outcome.of("out_of_memory")] == ["resident", None]


@pytest.mark.parametrize("how", ["grow", "burst"])
def test_one_that_goes_over_is_ended_within_a_second(weighty: Project, how: str) -> None:
    outcome = fresh(weighty, f"item.item.behave={how}", "item.item.times=9", "run.on_oom=fail")
    assert outcome.code == 5, outcome
    assert "stage 'run' went over its RAM budget while making 'item'" in outcome.stderr
    assert "of 600.0 MiB" in outcome.stderr
    assert [e["item"] for e in outcome.of("item_finished")] == ["first"]
    if how == "grow":
        times = [float(line) for line in (weighty.folder / "flags/item.over").read_text().split()]
        assert times[-1] - times[0] < 1, "seconds that it computed on, over its budget"
        assert fresh(weighty, "item.item.times=0", "item.item.behave=grow").code == 0


def test_what_does_not_fit_is_refused_before_it_starts(weighty: Project) -> None:
    outcome = fresh(weighty, "budget.ram=300MiB", "item.item.takes=200")
    assert outcome.code == 5, outcome
    assert outcome.of("stage_started") == []
    assert "stage 'run' does not fit" in outcome.stderr
    assert "MiB of RAM are missing" in outcome.stderr
    assert 'would fit: a budget of ram = "0.5GiB"' in outcome.stderr
    assert "would fit: takes = 8 in [stage.with]" in outcome.stderr
