"""What there is to do: backwards from the last outputs, only what is missing and what that needs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from scripted import run
from toy_plugin import MANIFEST

from runner.cli.pipelines import open_pipeline
from runner.work.demand import demand
from runner.work.models import resolve_models
from runner.work.work import Work, run_directory

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

    from runner.work.demand import Demand


@pytest.fixture
def ran(toy: Project) -> Project:
    """Two items, ``one`` and ``two``, made in two stages."""
    assert run(toy, "toy.toml").code == 0
    return toy


def found(toy: Project, fresh: tuple[int, ...] = ()) -> Demand:
    with toy.as_environment():
        pipeline = open_pipeline(toy.folder / "toy.toml")
        keys = resolve_models(pipeline).keys()
        assert keys is not None
        return demand(Work(pipeline, keys, run_directory(pipeline, toy.folder / "runs")), fresh)


def tasks(demanded: Demand) -> list[list[str]]:
    return [[task.item.id for task in of_stage] for of_stage in demanded.tasks]


def outputs(toy: Project, start: str) -> list[Path]:
    return sorted((toy.folder / "runs/toy/outputs").glob(f"{start}*.txt"))


def handoffs(toy: Project) -> list[Path]:
    return sorted((toy.folder / "runs/toy/handoff/make").iterdir())


def test_with_all_there_there_is_nothing(ran: Project) -> None:
    demanded = found(ran)
    assert demanded.nothing
    assert demanded.cached == [2, 2]
    shutil.rmtree(ran.folder / "runs/toy/handoff")  # which no output needs any more
    assert found(ran).nothing


def test_of_nothing_all_is_to_be_made(toy: Project) -> None:
    demanded = found(toy)
    assert tasks(demanded) == [["one", "two"], ["one", "two"]]
    assert not demanded.nothing
    assert demanded.cached == [0, 0]
    assert {task.reason for of_stage in demanded.tasks for task in of_stage} == {"not made yet"}


def test_a_missing_output_is_made_of_the_handoff_that_is_there(ran: Project) -> None:
    outputs(ran, "two")[0].unlink()
    demanded = found(ran)
    assert tasks(demanded) == [[], ["two"]]
    assert demanded.cached == [2, 1]


def test_an_output_of_another_key_or_that_was_cut_is_not_done(ran: Project) -> None:
    one, two = outputs(ran, "one")[0], outputs(ran, "two")[0]
    one.write_bytes(one.read_bytes()[:-1])
    record = two.with_name(f"{two.name}.runner.json")
    record.write_text(record.read_text().replace('"key": "', '"key": "0'))
    assert tasks(found(ran)) == [[], ["one", "two"]]


def test_a_damaged_handoff_counts_where_it_is_needed(ran: Project) -> None:
    for path in handoffs(ran):
        path.write_bytes(b"damaged")
    assert found(ran).nothing
    outputs(ran, "one")[0].unlink()
    demanded = found(ran)
    assert tasks(demanded) == [["one"], ["one"]]
    assert len(demanded.damaged) == 1
    assert demanded.tasks[0][0].reason == "its hand-off is damaged"


def test_items_of_one_key_are_one_task(toy: Project) -> None:
    toy.write("toy.toml", MANIFEST.replace('"two"', '"one"'))
    demanded = found(toy)
    (make,), (write,) = demanded.tasks
    assert make.items == write.items
    assert len(set(make.items)) == 2


def test_a_renamed_item_has_its_output_already(ran: Project) -> None:
    ran.write("toy.toml", MANIFEST.partition("[batch]")[0] + '[[item]]\nid = "new"\nprompt = "one"\n')
    demanded = found(ran)
    assert demanded.nothing
    ((source, target),) = demanded.renamed
    assert (source.name[:4], target.name[:4]) == ("one-", "new-")


def test_what_is_forced_and_what_follows(ran: Project) -> None:
    assert tasks(found(ran, (0,))) == [["one", "two"], ["one", "two"]]
    assert tasks(found(ran, (1,))) == [[], ["one", "two"]]
