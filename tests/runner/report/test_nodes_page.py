"""The page of a run over several nodes: who made what, when, and who was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from browsing import chromium, visit
from pages import data_of

from runner.events import ItemFinished, NodeJoined, NodeLost, NodeRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pages import Telling


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


def test_nodes_and_their_shares_are_reported(browser: Any, reported: Telling) -> None:
    reported.start(2)
    reported.events.emit(NodeJoined(node="one", host="h", device="cuda:0"))
    reported.events.emit(NodeRefused(node="two", code=5, reason="too small"))
    made = ItemFinished(stage="draw", item="fox", key="0" * 64, status="done", seconds=2.0, node="one")
    reported.events.emit(made)
    reported.events.emit(NodeLost(node="one", reason="its channel has ended", stage="draw", items=["hare"]))
    reported.end()
    page = reported.page()
    (run,) = data_of(page)["runs"]
    one, two = run["nodes"]
    assert (one["name"], one["device"], one["done"], one["busy"]) == ("one", "cuda:0", 1, 2.0)
    assert (one["state"], one["reason"]) == ("lost", "its channel has ended")
    assert [(share["stage"], share["done"]) for share in one["shares"]] == [("draw", 1)]
    assert (two["state"], two["reason"], two["shares"]) == ("left out", "too small", [])
    with visit(browser, page) as seen:
        assert seen.texts(".timeline.node p") == [
            "one · cuda:0 · 1 item · lost: its channel has ended",
            "two · 0 items · left out: too small",
        ]
        assert seen.page.locator(".timeline.node .strip a").count() == 1
