"""The command line itself: quick, light, and its errors where errors belong."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from runner.errors import EXIT_MEANINGS, ExitCode

if TYPE_CHECKING:
    from project import Project


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["plugins", "list", "--help"], ["--version"]]
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom runner.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'transformers', 'huggingface_hub', 'runner.plugins'}\n"
        # typer from 0.29 on imports pydantic itself as soon as it has an option to parse
        f"heavy |= {{'pydantic'}} if {arguments!r} == ['--help'] else set()\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "set()"


def test_every_exit_code_is_explained() -> None:
    assert set(EXIT_MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run"], "Missing argument"),
        (["run", "toy.toml", "--nonsense"], "No such option"),
        (["paint", "toy.toml"], "No such command"),
        (["run", "toy.toml", "--set", "steps"], "write it KEY=VALUE"),
        (["run", "toy.toml", "--set", "stage=1"], "stage"),
        (["run", "toy.toml", "--set", "batch.prompts.0.x=1"], "'0' is not in a table"),
        (
            ["run", "toy.toml", "--set", "stage.mkae.with.steps=1"],
            "no stage 'mkae'; did you mean 'make'?",
        ),
        (
            ["run", "toy.toml", "--set", "budget.vrm=1GiB"],
            "unknown key 'vrm'; did you mean 'vram'?",
        ),
        (["run", "toy.toml", "--set", "stage.make.with.stesp=1"], "no parameter 'stesp'"),
        (["run", "toy.toml", "--fresh", "mkae"], "there is no such stage; did you mean 'make'?"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_writes_nothing(
    toy: Project, arguments: list[str], words: str
) -> None:
    before = toy.files()
    outcome = toy.invoke(*arguments)
    assert outcome.code == 2, outcome
    assert words in outcome.stderr
    assert outcome.stdout == ""
    assert toy.files() == before


def test_a_wrong_value_on_the_command_line_is_reported_as_its_own(toy: Project) -> None:
    outcome = toy.invoke("run", "toy.toml", "--set", "stage.make.with.steps=0")
    assert outcome.code == 3
    assert (
        "--set stage.make.with.steps=0: 'steps': must be greater than or equal to 1, not 0" in outcome.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["run", "no*.toml"], 2), (["run", "wrong.toml"], 3), (["run", "wrong.toml", "--dry-run"], 3)],
)
def test_what_cannot_start_is_reported_in_json_too(toy: Project, arguments: list[str], code: int) -> None:
    toy.write("wrong.toml", "version = 1")
    outcome = toy.invoke(*arguments, "--json")
    assert outcome.code == code, outcome
    (report,) = outcome.events
    assert report["exit_code"] == code
    assert report["error"] in outcome.stderr


def test_plan_and_dry_run_show_what_would_be_done_and_write_nothing(toy: Project) -> None:
    before = toy.files()
    planned = toy.invoke("plan", "toy.toml", "--json")
    assert planned.code == 0, planned
    assert planned.stdout == toy.invoke("run", "toy.toml", "--dry-run", "--json").stdout
    stages = json.loads(planned.stdout)["stages"]
    assert [s["stage"] for s in stages] == ["make", "write"]
    assert [[t["item"] for t in s["todo"]] for s in stages] == [["one", "two"]] * 2
    assert stages[0]["todo"][0]["reason"] == "not made yet"
    shown = toy.invoke("plan", "toy.toml")
    assert "2 of 2" in shown.stdout
    assert "make: one: not made yet" in shown.stdout
    assert toy.files() == before


def test_a_plan_needs_no_device(toy: Project) -> None:
    outcome = toy.invoke("plan", "toy.toml", "--set", "budget.device=cuda", "--set", "budget.vram=8GiB")
    assert outcome.code == 0, outcome


def test_fresh_without_a_stage_does_not_take_the_manifest_for_one(toy: Project) -> None:
    for arguments in (["--fresh", "toy.toml"], ["toy.toml", "--fresh"]):
        outcome = toy.invoke("plan", *arguments, "--json")
        assert outcome.code == 0, outcome
        assert json.loads(outcome.stdout)["stages"][0]["todo"][0]["reason"] == "forced by --fresh"


def test_a_bug_is_a_traceback_and_exit_70(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.cli.pipelines.open_pipeline", lambda *_: 1 / 0)
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 70
    assert "ZeroDivisionError" in outcome.stderr
    assert "bug of runner's own" in outcome.stderr


def test_a_reader_that_goes_away_does_not_stop_the_run(toy: Project) -> None:
    with toy.start("run", "toy.toml", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stderr.read()
        assert process.wait(60) == 0
    assert len(list((toy.folder / "runs/toy/outputs").glob("*.txt"))) == 2
