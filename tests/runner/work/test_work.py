"""Keys and files of a pipeline's items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripted import first_stage, run

if TYPE_CHECKING:
    from project import Project


def test_keys_lead_from_a_stage_to_what_it_reads(toy: Project) -> None:
    work = first_stage(toy, "toy.toml").work
    make, write = work.pipeline.stages
    assert work.stage_keys(make) == {work.key("one", make), work.key("two", make)}
    assert work.sources("one", make) == set()
    assert work.sources("one", write) == {("make", work.key("one", make))}


def test_outputs_are_the_files_of_terminal_stages_made_or_not(toy: Project) -> None:
    work = first_stage(toy, "toy.toml").work
    make, write = work.pipeline.stages
    assert work.files("one", make) == {}
    one, two = work.outputs()
    assert ([*work.files("one", write).values()], one.exists()) == ([one], False)
    assert run(toy, "toy.toml").code == 0
    assert {one, two} == {*(toy.folder / "runs/toy/outputs").glob("*.txt")}
