"""The accelerator's benchmark: what it refuses, and what it records of parts that have no time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench.accelerator_results import Part, Results

if TYPE_CHECKING:
    from project import Project

SCRIPT = Path(__file__).parent / "bench/accelerator.py"


def start(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    if not project.may_start:
        pytest.skip("it starts a command")
    command = [sys.executable, str(SCRIPT), "--out", str(project.folder / "out"), *arguments]
    return subprocess.run(command, env=project.environment, capture_output=True, text=True, check=False)


def test_it_refuses_the_cpu(project: Project) -> None:
    done = start(project, "--device", "cpu")
    assert done.returncode == 1
    assert "this benchmark needs an accelerator" in done.stderr
    assert not (project.folder / "out").exists()


def test_parts_that_have_no_time_are_recorded(sim: Project) -> None:
    done = start(sim, "--size", "tiny", "--parts", "encode", "--total", "1")
    assert done.returncode == 1, done.stderr
    found = json.loads((sim.folder / "out/results.json").read_text())
    assert [(part["name"], part["status"]) for part in found["parts"]] == [
        ("checkpoint", "timed out"),
        ("encode", "timed out"),
    ]
    table = (sim.folder / "out/results.md").read_text()
    assert "| encode | **timed out**: no time left of 1 s |" in table
    assert not (sim.folder / "out/work").exists()


def test_a_part_is_stopped_at_its_limit(sim: Project) -> None:
    done = start(sim, "--size", "tiny", "--parts", "checkpoint", "--seconds", "0.5")
    assert done.returncode == 1, done.stderr
    (part,) = json.loads((sim.folder / "out/results.json").read_text())["parts"]
    assert (part["status"], part["reason"]) == ("timed out", "not done after 0.5 s")


def test_other_pixels_than_the_reference_are_a_failure(tmp_path: Path) -> None:
    about = {
        "date": "",
        "name": "",
        "device": "",
        "memory": 1,
        "size": "",
        "side": 1,
        "steps": 1,
        "versions": {},
    }
    results = Results(tmp_path, about)
    row = {"group": "pictures", "must_equal": True}
    for name, hashes in {"a": {"1": "x", "2": "y"}, "b": {"1": "x"}, "c": {"1": "x", "2": "z"}}.items():
        part = Part(name, rows=[{**row, "what": f"the run of {name}", "hashes": hashes}])
        results.compare(part.rows[0])
        results.add(part)
    assert [part.rows[0]["pixels"] for part in results.parts] == ["reference", "equal", "DIFFER"]
    assert [part.status for part in results.parts] == ["ok", "ok", "failed"]
    assert (
        "**failed**: other pixels than the reference: the run of c" in (tmp_path / "results.md").read_text()
    )


@pytest.mark.parametrize("fitting", range(34))
def test_the_largest_batch_that_fits_is_found(fitting: int) -> None:
    from bench.accelerator_throughput import largest_batch

    found = largest_batch(lambda items: items <= fitting, 32)
    assert found <= min(fitting, 32)
    assert min(fitting, 32) - found <= found // 8
