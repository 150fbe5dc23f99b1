"""What a worker is sent: the manifest's settings, the plan's placement, and where each item's files go."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scripted import first_stage
from toy_plugin import MANIFEST

from runner.machine.cpu import core_count
from runner.supervisor.jobs import make_job

if TYPE_CHECKING:
    from project import Project

    from runner.protocol import Job

SETTINGS = [
    "budget.threads=3",
    "budget.ram=900MiB",
    "stage.make.retries=2",
    "stage.make.timeout=9",
    "stage.make.dtype=bfloat16",
    "stage.make.save_dtype=float16",
    "run.checkpoint_every=7",
]


def made(toy: Project, *sets: str, retains_freed_memory: bool = False, group: int = 1) -> Job:
    stage = first_stage(toy, "toy.toml", sets)
    placed = replace(stage.plan.chosen, retains_freed_memory=retains_freed_memory, group=group)
    return make_job(stage.work, stage.plan, placed, stage.tasks, None)


def test_settings_reach_the_worker(toy: Project) -> None:
    job = made(toy, *SETTINGS)
    assert (job.threads, job.retries, job.timeout, job.checkpoint_every) == (3, 2, 9.0, 7)
    assert (job.name, job.dtype, job.save_dtype, job.device) == ("make", "bfloat16", "float16", "cpu")
    assert job.ram == 900 << 20
    assert job.distribution == "toy-plugin"
    assert job.components == {}


def test_so_does_the_placement(toy: Project) -> None:
    assert made(toy, retains_freed_memory=True, group=4).retains_freed_memory
    assert made(toy, retains_freed_memory=True, group=4).group == 4
    assert not made(toy).retains_freed_memory
    assert made(toy).vram is None
    assert made(toy).ram is None


def test_without_a_setting_all_cores_compute(toy: Project) -> None:
    toy.write("toy.toml", MANIFEST.replace("threads = 1\n", ""))
    job = made(toy)
    assert (job.threads, job.retries, job.timeout, job.save_dtype) == (core_count(), 0, None, None)


def test_each_item_has_its_places_and_what_it_is_made_from(toy: Project) -> None:
    job = made(toy)
    runs = toy.folder / "runs/toy"
    assert [item.id for item in job.items] == ["one", "two"]
    for item in job.items:
        assert item.handoff == runs / f"handoff/make/{item.key}.safetensors"
        assert item.state == runs / f"state/make/{item.key}.safetensors"
        assert (item.files, item.inputs) == ({}, {})
        assert item.lineage["key"] == item.key
        assert item.lineage["params"]["prompt"] == item.id
        assert item.params.values["prompt"] == item.id
    assert len({item.key for item in job.items}) == 2
