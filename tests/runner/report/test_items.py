"""Which outputs the page takes for those that are asked for, and which for earlier ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pages import data_of
from toy_plugin import STAGES

if TYPE_CHECKING:
    from pages import Telling
    from project import Project

KEY = "ab" * 32


def statuses(reported: Telling) -> dict[str, str]:
    return {one["id"]: one["status"] for one in data_of(reported.page())["cards"]}


def run(
    reported: Telling, *items: str, content: str = "one", overridden: bool = False, code: int = 0
) -> None:
    """A run of so many items that comes to its end."""
    reported.start(len(items), content=content, overridden=overridden)
    for item in items:
        reported.item(item, KEY)
    reported.end(code)


def test_what_the_manifest_asks_for_stays_when_a_command_line_asks_for_something_else(
    reported: Telling,
) -> None:
    run(reported, "fox", "owl")
    run(reported, "cat", overridden=True)
    assert statuses(reported) == {"cat": "done", "fox": "done", "owl": "done"}
    run(reported, "dog", overridden=True)
    assert statuses(reported) == {"dog": "done", "fox": "done", "owl": "done", "cat": "earlier"}
    run(reported, "fox", "owl")
    assert statuses(reported) == {"fox": "done", "owl": "done", "cat": "earlier", "dog": "earlier"}
    run(reported, "hen", content="changed")
    run(reported, "cat", content="changed", overridden=True)
    assert statuses(reported) == {
        "cat": "done",
        "hen": "done",
        "fox": "earlier",
        "owl": "earlier",
        "dog": "earlier",
    }


def test_what_a_killed_run_made_stays_too(reported: Telling) -> None:
    reported.start(3, content="one")
    reported.item("fox", KEY)
    run(reported, "cat", overridden=True)
    assert statuses(reported) == {"cat": "done", "fox": "done"}
    run(reported, "cat", content="changed", overridden=True)
    assert statuses(reported) == {"cat": "done", "fox": "earlier"}


def test_a_prompt_of_the_command_line_leaves_the_manifests_own_alone(toy: Project) -> None:
    """The same in real runs: of a manifest whose items are in a file, until that file is changed."""
    toy.write("toy.toml", STAGES + '[batch]\nfile = "prompts.txt"\n')
    toy.write("prompts.txt", "one\n")
    page = toy.folder / "runs/toy/report.html"

    def after(*arguments: str) -> dict[str, str]:
        outcome = toy.runner("run", "toy.toml", *arguments)
        assert outcome.code == 0, outcome
        return {card["id"]: card["status"] for card in data_of(page)["cards"]}

    assert after() == {"one": "done"}
    assert after("--prompt", "two") == {"two": "done", "one": "done"}
    toy.write("prompts.txt", "three\n")
    assert after("--prompt", "two") == {"two": "done", "one": "done"}  # nothing to do: the page is as it was
    assert after("--prompt", "four") == {"four": "done", "one": "earlier", "two": "earlier"}
