"""``runner runs clean``: frees what nobody needs, and nothing that a run would go on with."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from project import Project

KEY = "0123456789abcdef" * 4  # of settings that nobody has any more


def clean(project: Project, *arguments: str) -> dict[str, set[str]]:
    """What was freed, by kind, as paths from the runs' folder."""
    outcome = project.invoke("runs", "clean", *arguments, "--json")
    assert outcome.code == 0, outcome
    freed: dict[str, set[str]] = {}
    for run in json.loads(outcome.stdout)["runs"]:
        for kind, paths in run["freed"].items():
            freed.setdefault(kind, set()).update(os.path.relpath(p, project.folder / "runs") for p in paths)
    return {kind: paths for kind, paths in freed.items() if paths}


def to_do(project: Project, manifest: str = "toy.toml", *arguments: str) -> list[Any]:
    outcome = project.invoke("plan", manifest, *arguments, "--json")
    assert outcome.code == 0, outcome
    return [stage["todo"] for stage in json.loads(outcome.stdout)["stages"]]


def keys(project: Project, stage: str) -> dict[str, str]:
    """The keys of a stage of ``toy``, by item."""
    todo = to_do(project, "toy.toml", "--fresh")[["make", "write"].index(stage)]
    return {task["item"]: task["key"] for task in todo}


def test_what_is_of_no_use_goes_and_all_else_stays(ran: Project) -> None:
    toy = ran.folder / "runs/toy"
    useless = {
        "temporary": toy / "handoff/make/.x.safetensors.1.tmp",
        "states": toy / f"state/make/{keys(ran, 'make')['one']}.safetensors",  # of an item that is done
        "handoffs": toy / f"handoff/make/{KEY}.safetensors",
        "logs": toy / "logs/20200101T000000Z-make.log",
    }
    foreign = [toy / "handoff/make/notes.txt", toy / "notes.log", toy / "logs/notes.txt", toy / "state/x"]
    for path in (*useless.values(), *foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"text")
    os.utime(useless["logs"], (0, 0))
    before = ran.files()

    outcome = ran.invoke("runs", "clean", "toy", "--dry-run")
    line = "toy: 16 B would be freed: 1 temporary file, 1 saved state, 1 log, 1 hand-off\n"
    assert outcome.stdout == line
    assert ran.files() == before
    outcome = ran.invoke("runs", "clean", "toy")
    assert outcome.stdout == line.replace("would be freed", "freed")
    assert before - ran.files() == {str(path.relative_to(ran.folder)) for path in useless.values()}
    assert not (toy / "state/make").exists()  # nor its empty folder
    assert ran.invoke("runs", "clean", "toy").stdout == "toy: nothing to free\n"
    assert to_do(ran) == [[], []]


def test_what_a_run_goes_on_with_stays_whatever_is_asked_for(ran: Project) -> None:
    toy = ran.folder / "runs/toy"
    one, two = (keys(ran, "make")[item] for item in ("one", "two"))
    next(toy.glob("outputs/one-*.txt")).unlink()
    (toy / f"handoff/make/{two}.safetensors").unlink()  # it is not needed: its page is there
    (toy / "state/write").mkdir(parents=True)
    state = toy / f"state/write/{keys(ran, 'write')['one']}.safetensors"
    state.write_bytes(b"half")
    before, files = to_do(ran), ran.files()
    assert [len(tasks) for tasks in before] == [0, 1]

    assert clean(ran, "toy", "--handoffs", "--outputs") == {}
    assert ran.files() == files
    assert to_do(ran) == before

    next(toy.glob("outputs/one-*.runner.json")).unlink()
    next(toy.glob("outputs/two-*.txt")).unlink()
    assert clean(ran, "toy", "--handoffs", "--outputs") == {}
    assert [len(tasks) for tasks in to_do(ran)] == [1, 2]
    assert (toy / f"handoff/make/{one}.safetensors").exists()
    assert state.exists()


def test_handoffs_of_what_is_done_go_with_the_option(ran: Project) -> None:
    assert clean(ran, "toy") == {}
    assert clean(ran, "toy", "--handoffs") == {
        "handoffs": {f"toy/handoff/make/{key}.safetensors" for key in keys(ran, "make").values()}
    }
    assert to_do(ran) == [[], []]
    assert len(ran.outputs("toy")) == 4


def test_outputs_go_only_with_the_option_and_only_ours(ran: Project) -> None:
    ours = {f"toy/outputs/{name}" for name in ran.outputs("toy")}
    photo = ran.write("runs/toy/outputs/photo-20240101.png", b"\x89PNG of mine")
    assert clean(ran, "toy", "--handoffs").keys() == {"handoffs"}
    assert clean(ran, "toy", "--outputs") == {"outputs": ours}
    assert photo.exists()
    assert (ran.folder / "runs/toy/manifest.toml").exists()


def test_handoffs_that_a_run_was_for_are_outputs(ran: Project) -> None:
    files = ran.files()
    assert clean(ran, "numbers", "--handoffs") == {}
    # of a stage that has another name now, nobody knows whether it was the last
    manifest = ran.folder / "numbers.toml"
    for path in (manifest, ran.folder / "runs/numbers/manifest.toml"):
        path.write_text(path.read_text().replace('name = "make"', 'name = "draw"'))
    assert clean(ran, "numbers", "--handoffs") == {}
    assert ran.files() == files
    freed = clean(ran, "numbers", "--outputs")["outputs"]
    assert sum("handoff/make/" in path for path in freed) == 2


def test_changed_settings_leave_orphans(ran: Project) -> None:
    old = keys(ran, "make")
    for path in (ran.folder / "toy.toml", ran.folder / "runs/toy/manifest.toml"):
        path.write_text(path.read_text() + "seeds = [5]\n")
    assert clean(ran, "toy") == {"handoffs": {f"toy/handoff/make/{key}.safetensors" for key in old.values()}}
    assert len(ran.outputs("toy")) == 4  # yesterday's
    assert len(clean(ran, "toy", "--outputs")["outputs"]) == 4


def test_a_run_that_something_else_came_between_can_still_go_on(ran: Project) -> None:
    """``--prompt`` writes another manifest into the run directory; the night's own is still to be run."""
    next((ran.folder / "runs/toy/outputs").glob("one-*.txt")).unlink()
    before = to_do(ran)
    own = ran.folder / "runs/toy/manifest.toml"
    own.write_text(own.read_text().replace('["one", "two"]', '["a test"]'))
    assert clean(ran, "toy", "--outputs") == {}
    assert to_do(ran) == before
    # only a manifest that is still there is run again
    (ran.folder / "toy.toml").unlink()
    assert clean(ran, "toy", "--outputs").keys() == {"handoffs", "outputs"}


def test_where_it_is_not_known_what_is_needed_nearly_all_stays(ran: Project) -> None:
    (ran.folder / "runs/toy/.left.tmp").touch()
    (ran.folder / f"runs/toy/handoff/make/{KEY}.safetensors").touch()
    shutil.rmtree(next(ran.packages.glob("*.dist-info")))
    files = ran.files()
    outcome = ran.invoke("runs", "clean", "--handoffs", "--outputs")
    assert outcome.code == 0, outcome
    assert files - ran.files() == {"runs/toy/.left.tmp"}
    assert "toy: all but temporary files and logs stays" in outcome.stderr
    assert "stage 'toy.make' is offered by no installed plugin" in outcome.stderr


def test_only_files_of_that_age_go(ran: Project) -> None:
    make = ran.folder / "runs/toy/handoff/make"
    old, new = make / f"{KEY}.safetensors", make / f"{KEY[::-1]}.safetensors"
    for path, days in ((old, 31), (new, 29)):
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)
    assert clean(ran, "--older-than", "30d", "--handoffs", "--outputs") == {
        "handoffs": {f"toy/handoff/make/{old.name}"}
    }
    assert new.exists()
    outcome = ran.invoke("runs", "clean", "--older-than", "30")
    assert outcome.code == 2
    assert '--older-than 30: write it with its unit, such as "30d" or "12h"' in outcome.stderr


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_run_that_runs_is_left_alone(ran: Project, dry: list[str]) -> None:
    for name in ("toy", "numbers"):
        (ran.folder / f"runs/{name}/handoff/make/.left.tmp").touch()
    with RunDirectory(ran.folder / "runs/toy").locked():
        named = ran.invoke("runs", "clean", "toy", *dry)
        assert named.code == 6, named
        assert f"toy: left alone, it is running: process {os.getpid()} on " in named.stderr
        outcome = ran.invoke("runs", "clean", *dry)
        assert outcome.code == 0, outcome
        assert "numbers: 0 B" in outcome.stdout
    assert (ran.folder / "runs/toy/handoff/make/.left.tmp").exists()


def test_links_are_not_followed(ran: Project, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    target = elsewhere / f"{KEY}.safetensors"
    target.touch()
    make = ran.folder / "runs/toy/handoff/make"
    (make / target.name).symlink_to(target)
    assert clean(ran, "toy") == {}
    (make.parent / "other").symlink_to(elsewhere)
    assert clean(ran, "toy", "--outputs", "--dry-run").keys() == {"outputs"}
    ran.invoke("runs", "clean", "toy", "--outputs")  # whether it takes a folder with links in it or not
    assert target.exists()
