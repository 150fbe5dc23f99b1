"""``runner reproduce``: what cannot be made again, and why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from reproduced import outputs, results, rewrite, write_sidecar

from runner.files.provenance import read_provenance, without_provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project


def change_version(project: Project, _picture: Path) -> list[str]:
    source = (project.packages / "chain.py").read_text()
    project.write("packages/chain.py", source.replace("version=1", "version=2"))
    return []


def remove_plugin(project: Project, _picture: Path) -> list[str]:
    shutil.rmtree(project.packages / "chain_plugin-1.0.dist-info")
    return []


def name_another_model(project: Project, _picture: Path) -> list[str]:
    project.write("other/part/config.json", '{"scale": 0.25}')
    return ["--model", "./other"]


def name_no_model(_project: Project, _picture: Path) -> list[str]:
    return ["--model", "./nowhere"]


def narrow_parameter(project: Project, _picture: Path) -> list[str]:
    source = (project.packages / "chain.py").read_text()
    project.write("packages/chain.py", source.replace("side: int = 4", "sides: int = 4"))
    return []


def pretend_a_card(_project: Project, picture: Path) -> list[str]:
    rewrite(picture, lambda stage: stage.update(device="NVIDIA H200"))
    return []


def take_it_out(_project: Project, picture: Path) -> list[str]:
    picture.write_bytes(without_provenance(picture.read_bytes()))
    return []


def lose_a_stage(_project: Project, picture: Path) -> list[str]:
    record = read_provenance(picture)
    assert record is not None
    del record["lineage"]["caption"]
    write_sidecar(picture, record)
    return []


def color_the_terminal(_project: Project, picture: Path) -> list[str]:
    rewrite(picture, lambda stage: stage.update(stage="\x1b[31mchain.draw"))
    return []


REFUSED = {
    change_version: (4, "z-first, a-second: version of the stage: 1 -> 2"),
    remove_plugin: (4, "'chain.caption' is offered by no installed plugin"),
    name_another_model: (8, "z-first: model: "),
    name_no_model: (8, "--model SOURCE names it where it is now"),
    narrow_parameter: (4, "z-first, a-second: side: 4 -> not set"),
    pretend_a_card: (5, "it was made on 'NVIDIA H200' (--set budget.device=cpu makes it on the CPU"),
    take_it_out: (2, "has no record of what it was made from"),
    color_the_terminal: (2, "incomplete, or of another version of runner"),
    lose_a_stage: (2, "incomplete, or of another version of runner: a stage of its lineage is missing"),
}


@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_cannot_be_made_again_is_reported_with_the_reason(
    again: Project, change: Callable[[Project, Path], list[str]]
) -> None:
    picture = Path(next(path for path in outputs(again) if path.endswith(".picture.png")))
    arguments = change(again, picture)
    before = again.files()
    code, words = REFUSED[change]

    outcome = again.invoke("reproduce", str(picture), "--json", *arguments)

    assert outcome.code == code, outcome
    assert [(line["ok"], line["exit_code"]) for line in results(outcome)] == [(False, code)]
    shown = again.invoke("reproduce", str(picture), *arguments)
    assert words in shown.stderr, shown
    assert "Traceback" not in shown.stderr
    assert "\x1b" not in shown.stderr
    assert again.files() == before
