"""``keep_handoffs = "needed"``: hand-offs go as the batch goes, and a later run makes no more for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Project

NEEDED = '[run]\nkeep_handoffs = "needed"\n'
ITEMS = "".join(
    f'[[item]]\nid = "{name}"\nprompt = "{prompt}"\nbehave = "{behave}"\n'
    for name, prompt, behave in (
        ("a", "x", "well"),
        ("b", "x", "well"),
        ("bad", "y", "raise"),
        ("c", "z", "well"),
    )
)

WATCHES = """
from runner.api import hookimpl
RUNNER_API = 1

@hookimpl
def runner_item_finished(run, item):
    left = len(list((run.directory / "handoff/make").glob("*.safetensors")))
    with open(run.directory / "left", "a") as file:
        file.write(f"{item.stage} {item.item} {left}\\n")
"""


def handoffs(toy: Project) -> int:
    return len(list((toy.folder / "runs/toy/handoff").rglob("*.safetensors")))


def test_handoffs_go_when_all_that_was_to_be_made_of_them_is_there(toy: Project) -> None:
    toy.plugin("watches", WATCHES)
    toy.write("toy.toml", STAGES + NEEDED + ITEMS)
    outcome = toy.runner("run", "toy.toml")
    assert outcome.code == 1, outcome
    assert handoffs(toy) == 0
    left = (toy.folder / "runs/toy/left").read_text().splitlines()
    # two items share one, and that goes with the first task, which makes both
    # (while others are reported, the worker may have made that of "c" already)
    assert [line[:-2] for line in left[:3]] == ["make a", "make b", "make bad"]
    assert {line[-1] for line in left[:3]} <= {"1", "2"}
    assert left[3:] == ["make c 2", "write a 1", "write b 1", "write c 0"]
    first = toy.outputs("toy")

    outcome = toy.runner("run", "toy.toml", "--json", "--set", "item.bad.behave=well")
    assert outcome.code == 0, outcome
    assert [e["items"] for e in outcome.of("stage_started")] == [1, 1]
    assert first.items() <= toy.outputs("toy").items()
    assert handoffs(toy) == 0


def test_what_is_still_to_be_taken_stays_and_the_rest_of_earlier_runs_goes(toy: Project) -> None:
    toy.write("toy.toml", STAGES + ITEMS)
    assert toy.runner("run", "toy.toml").code == 1
    assert handoffs(toy) == 2
    page = next((toy.folder / "runs/toy/outputs").glob("c-*.txt"))
    page.unlink()
    toy.write("toy.toml", STAGES + NEEDED + ITEMS)
    outcome = toy.runner("run", "toy.toml", "--json")
    # the hand-off of what was missing was needed, and not made again
    made = [(e["stage"], e["item"]) for e in outcome.of("item_finished") if e["status"] == "done"]
    assert made == [("write", "c")]
    assert page.exists()
    assert handoffs(toy) == 0


def test_other_items_keep_theirs_when_only_failed_ones_run(toy: Project) -> None:
    toy.write("toy.toml", STAGES + ITEMS)
    toy.runner("run", "toy.toml")
    next((toy.folder / "runs/toy/outputs").glob("c-*.txt")).unlink()
    toy.write("toy.toml", STAGES + NEEDED + ITEMS)
    outcome = toy.runner("run", "toy.toml", "--retry-failed", "--set", "item.bad.behave=well")
    assert outcome.code == 0, outcome
    assert handoffs(toy) == 1
