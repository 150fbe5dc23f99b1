"""The states of runs from their journals, as ``runner runs list`` and ``show`` report them."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project


def listed(project: Project) -> dict[str, dict[str, Any]]:
    outcome = project.invoke("runs", "list", "--json")
    assert outcome.code == 0, outcome
    return {run["run"]: run for run in json.loads(outcome.stdout)["runs"]}


def shown(project: Project, *arguments: str) -> dict[str, Any]:
    outcome = project.invoke("runs", "show", *arguments, "--json")
    assert outcome.code == 0, outcome
    report: dict[str, Any] = json.loads(outcome.stdout)
    return report


def cut(journal: Path, event: str) -> None:
    """Cut a journal off before its last event of that kind, as a kill does."""
    lines = journal.read_text().splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if f'"event": "{event}"' in line)
    journal.write_text("".join(lines[:last]) + lines[last][:40])


def test_runs_are_listed_with_their_states(ran: Project) -> None:
    before = ran.files()
    runs = listed(ran)
    assert {name: run["state"] for name, run in runs.items()} == {
        "failing": "failed",
        "numbers": "done",
        "toy": "done",
    }
    assert [(run["done"], run["items"]) for run in runs.values()] == [(1, 2), (2, 2), (2, 2)]
    assert all(run["size"] > 1000 and run["time"].startswith("20") for run in runs.values())
    outcome = ran.invoke("runs", "list")
    failing, _, toy = outcome.stdout.splitlines()[1:]
    assert "1/2" in failing
    assert "1 failed" in failing
    assert "2/2" in toy
    assert "done" in toy
    assert ran.files() == before


def test_no_runs_are_no_error(project: Project) -> None:
    outcome = project.invoke("runs", "list")
    assert outcome.code == 0
    assert "there are no runs in runs/" in outcome.stderr
    assert listed(project) == {}


def test_show_reports_what_failed_and_why_with_times_and_peaks(ran: Project) -> None:
    outcome = ran.invoke("runs", "show", "failing")
    assert outcome.code == 0, outcome
    assert "2 items: 1 made, 1 failed" in outcome.stdout
    assert "failed: make item: ValueError: item cannot be made" in outcome.stdout
    assert "RAM peak (predicted)" in outcome.stdout
    assert "VRAM peak" not in outcome.stdout  # the CPU has none
    (run,) = shown(ran, "failing")["runs"]
    assert (run["exit_code"], run["state"], run["done"], run["failed"]) == (1, "failed", 1, 1)
    (failure,) = run["failures"]
    assert failure["item"] == "item"
    assert "Traceback" in failure["traceback"]
    make, write = run["stages"]
    assert (make["items"], make["done"], make["failed"]) == (2, 1, 1)
    assert (write["items"], write["done"], write["failed"]) == (1, 1, 0)
    assert make["measured"]["ram"] > 0
    assert make["predicted"].keys() == {"vram", "ram"}
    assert make["measured"].keys() == {"vram", "vram_reserved", "ram"}
    assert run["seconds"] > make["seconds"] > 0


def test_show_reports_the_last_run_or_all(ran: Project) -> None:
    again = ran.runner("run", "toy.toml")
    assert again.code == 0, again
    (last,) = shown(ran, "toy")["runs"]
    assert (last["made"], last["cached"], last["stages"]) == (0, 2, [])
    first, second = shown(ran, "toy", "--all")["runs"]
    assert (first["made"], first["cached"]) == (2, 0)
    assert second == last
    assert "2 items: 0 made, 2 there already" in ran.invoke("runs", "show", "toy").stdout


def test_show_lists_and_counts_warnings(ran: Project) -> None:
    journal = ran.folder / "runs/toy/journal.jsonl"
    first, *rest = journal.read_text().splitlines()
    cut = {"event": "warning", "kind": "prompt_cut", "message": "90 tokens, 77 are used", "stage": "make"}
    lines = [json.dumps({**cut, "item": f"item-{n}", "details": {"tokens": 90}}) for n in range(25)]
    journal.write_text("\n".join([first, *lines, *rest]) + "\n")
    outcome = ran.invoke("runs", "show", "toy")
    assert "warning: make item-0: 90 tokens, 77 are used" in outcome.stdout
    assert outcome.stdout.count("77 are used") == 20
    assert "25 warnings in all" in outcome.stdout
    assert "make: prompt cut for 25 items: item-0, item-1, " in outcome.stdout
    (run,) = shown(ran, "toy")["runs"]
    assert (run["warned"], len(run["warnings"])) == (25, 25)
    assert (run["warnings"][3]["item"], run["warnings"][3]["details"]) == ("item-3", {"tokens": 90})


def test_a_killed_run_shows_how_far_it_came(ran: Project) -> None:
    cut(ran.folder / "runs/toy/journal.jsonl", "item_finished")
    assert listed(ran)["toy"]["state"] == "killed"
    assert listed(ran)["toy"]["done"] is None
    outcome = ran.invoke("runs", "list")
    assert "?/2" in outcome.stdout
    assert "killed at write 1/2; the next run goes on from there" in outcome.stdout
    assert "not ended" in ran.invoke("runs", "show", "toy").stdout


def test_a_running_run_is_shown_with_the_process_that_holds_it(ran: Project) -> None:
    cut(ran.folder / "runs/toy/journal.jsonl", "run_finished")
    with RunDirectory(ran.folder / "runs/toy").locked():
        toy = listed(ran)["toy"]
        assert toy["state"] == "running"
        assert toy["holder"]["pid"] == os.getpid()
        outcome = ran.invoke("runs", "list")
        assert f"running at write 2/2: process {os.getpid()} on {socket.gethostname()}" in outcome.stdout
        assert "running at write" in ran.invoke("runs", "show", "toy").stdout
    assert listed(ran)["toy"]["state"] == "killed"


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (130, "interrupted at write 2/2; the next run goes on from there"),
        (9, "stopped at write 2/2 with exit code 9 (storage is full or failing)"),
        (77, "exit code 77"),
    ],
)
def test_a_run_that_was_stopped_shows_why(ran: Project, end: int, state: str) -> None:
    journal = ran.folder / "runs/toy/journal.jsonl"
    journal.write_text(journal.read_text().replace('"exit_code": 0', f'"exit_code": {end}, "error": "why"'))
    assert state in ran.invoke("runs", "list").stdout
    assert "\nwhy\n" in ran.invoke("runs", "show", "toy").stdout


def test_a_damaged_journal_shows_what_can_be_read(ran: Project) -> None:
    journal = ran.folder / "runs/toy/journal.jsonl"
    whole = shown(ran, "toy")["runs"]
    garbage = (
        '{"event": "stage_finished", "time": 3, "stage": ["x"], "seconds": 1e999}\n'
        '{"event": "item_finished", "stage": "nowhere"}\n{"event": "run_fini\n[1]\n\x00\udcff\n'
    )
    journal.write_text(journal.read_text() + garbage, errors="surrogateescape")
    assert shown(ran, "toy")["runs"] == whole
    journal.write_text(garbage + "{", errors="surrogateescape")
    assert shown(ran, "toy")["runs"] == []
    assert "no run yet" in ran.invoke("runs", "show", "toy").stdout


def test_a_run_that_is_not_there_is_a_usage_error(ran: Project) -> None:
    for name in ("tyo", "../runs/toy", ""):
        outcome = ran.invoke("runs", "show", name)
        assert outcome.code == 2, outcome
        assert f"there is no run '{name}' in runs/" in outcome.stderr
    assert (
        "did you mean 'toy'? (there are: failing, numbers, toy)" in ran.invoke("runs", "show", "tyo").stderr
    )
