"""What a run may take: time, memory, devices, storage; and what happens when it would take more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toy_plugin import BEHAVING

from runner.plan.limits import SPARE

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project


def test_a_worker_over_its_ram_is_ended_and_nothing_else(toy: Project) -> None:
    toy.write("toy.toml", BEHAVING.format("grow"))
    outcome = toy.runner("run", "toy.toml", "--set", "budget.ram=600MiB", "--json")
    assert outcome.code == 5, outcome
    assert "stage 'make' went over its RAM budget while making 'item'" in outcome.stderr
    # what it went over by is what it allocates between two looks, or what the kernel takes at a time
    assert outcome.of("stage_finished")[0]["measured"]["ram"] > 500 * 2**20
    outcome = toy.runner("run", "toy.toml", "--set", "item.item.behave=well", "--json")
    assert [e["items"] for e in outcome.of("stage_started")] == [1, 2], outcome


WITNESS = """
import os, pathlib, sys
from runner.api import hookimpl
RUNNER_API = 1

@hookimpl
def runner_run_finished(run, summary):
    heavy = [name for name in ("torch", "diffusers", "transformers", "accelerate") if name in sys.modules]
    held = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
    (run.directory / "witness").write_text(f"{int(held) // 1024} {heavy}")
"""


def test_the_supervisor_stays_small_and_imports_no_torch(toy: Project) -> None:
    toy.plugin("witness", WITNESS)
    assert toy.runner("run", "toy.toml").code == 0
    held, _, heavy = (toy.folder / "runs/toy/witness").read_text().partition(" ")
    assert heavy == "[]"
    # a plan leaves so much beside the worker: half for the fork server, and as much for a large batch
    assert int(held) << 20 < SPARE / 2


def test_storage_that_cannot_be_written_is_exit_9(toy: Project) -> None:
    blocked: Path = toy.write("file", "in the way")
    outcome = toy.runner("run", "toy.toml", "--runs-dir", str(blocked))
    assert outcome.code == 9, outcome
    assert "cannot write" in outcome.stderr


def test_devices_that_are_not_here_are_exit_5_before_anything_is_written(toy: Project) -> None:
    before = toy.files()
    toy.environment["CUDA_VISIBLE_DEVICES"] = ""
    for given, words in (
        (("--set", "budget.device=cuda:7"), "the budget's device is cuda:7"),
        (
            ("--set", "budget.device=auto", "--set", "budget.vram=8GiB"),
            "the budget gives vram, and this machine has no accelerator",
        ),
    ):
        outcome = toy.runner("run", "toy.toml", *given)
        assert outcome.code == 5, outcome
        assert words in outcome.stderr
    assert toy.files() == before
