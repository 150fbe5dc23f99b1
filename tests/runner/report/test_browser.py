"""The page in a browser, as people meet it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import toy_plugin
from browsing import chromium, visit
from pages import Telling, data_of
from runner_diffusers.media.writing import Result, encoded
from waiting import wait_until

from runner.events import RunFinished, Warned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from project import Project

HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(2)>"
STATE, CARDS, COUNT = "#state", ".card", "#count"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


def key(n: int) -> str:
    return f"{n:08x}" * 8


@pytest.fixture
def mixed(reported: Telling) -> Path:
    """Two pictures, one of them of a hostile prompt, and a failure."""
    reported.start(3)
    reported.item(
        "fox",
        key(1),
        params={"prompt": "a red fox", "seed": 2**64 - 1, "width": 64, "height": 32, "steps": 4},
    )
    reported.item("evil", key(2), params={"prompt": HOSTILE, "seed": 0})
    trace = 'Traceback (most recent call last):\n  File "stage.py", line 3, in one\nValueError: <b>no</b>'
    reported.item(
        "owl", key(3), "ValueError: <b>no</b>", traceback=trace, attempts=2, params={"prompt": "an owl"}
    )
    reported.end(1)
    reported.directory.manifest.write_text(f'# {HOSTILE}\nversion = 1\nname = "reported"\n')
    return reported.page()


def test_everything_is_text_and_in_its_place(browser: Any, mixed: Path) -> None:
    with visit(browser, mixed) as seen:
        assert seen.texts("h1") == ["reported"]
        assert seen.texts(STATE) == ["some items failed, the others are done"]
        assert seen.texts(".card .prompt") == ["a red fox", HOSTILE, "an owl"]
        assert "seed 18446744073709551615 · 64 × 32 · 4 steps" in seen.texts(".card .small")  # noqa: RUF001 - as it is shown
        assert seen.page.locator(".card img").count() == 2
        assert seen.page.locator("img[onerror], main script").count() == 0
        # the failure, with all that it said
        assert seen.page.locator(".traceback").is_visible()
        assert seen.texts(".traceback")[0].endswith("ValueError: <b>no</b>")
        assert seen.texts("#manifest-text")[0].startswith(f"# {HOSTILE}")
        # the stage: its peak beside the prediction and the budget, and its curve
        assert seen.texts(".stage h3") == ["draw"]
        assert seen.texts(".meter span") == ["RAM", "1.00 GiB", "predicted 1.00 GiB", "budget 2.00 GiB"]
        for line in ("edge", "predicted", "budget"):
            assert seen.page.locator(f".chart .{line}").count() == 1
    pictures = [url for url in seen.requests if url.endswith(".png")]
    assert len(pictures) == 2
    assert all("/reported/outputs/" in url for url in pictures)


def test_search_and_filters(browser: Any, mixed: Path) -> None:
    with visit(browser, mixed) as seen:
        seen.page.keyboard.press("/")
        for query, found in {
            "RED Fox": ["a red fox"],
            "alert(1)": [HOSTILE],
            key(3)[:8]: ["an owl"],
            "owl fox": [],
            "failed": ["an owl"],
            "": ["a red fox", HOSTILE, "an owl"],
        }.items():
            seen.page.locator("#search").fill(query)
            assert seen.texts(".card .prompt") == found, query
            assert seen.page.locator("#nothing").is_visible() == (not found)
        seen.page.get_by_role("button", name="Failed 1").click()
        assert seen.texts(".card .prompt") == ["an owl"]
        assert seen.texts(COUNT) == ["1 of 3"]


def test_a_picture_by_itself(browser: Any, mixed: Path) -> None:
    with visit(browser, mixed) as seen:
        first = seen.page.locator(CARDS).first
        assert first.get_attribute("href") == f"outputs/fox-{key(1)[:8]}.png"
        first.focus()
        seen.page.keyboard.press("ArrowRight")
        seen.page.keyboard.press("Enter")
        assert seen.texts("#viewer .full") == [HOSTILE]
        seen.page.keyboard.press("ArrowLeft")
        assert seen.texts("#viewer .full") == ["a red fox"]
        assert (
            seen.page.locator("#viewer img").evaluate(
                "image => image.decode().then(() => image.naturalWidth)"
            )
            == 1
        )
        assert key(1) in seen.texts("#viewer dd")
        seen.page.keyboard.press("Escape")
        assert not seen.page.locator("#viewer").is_visible()
        assert first.evaluate("card => card === document.activeElement")


def test_dark_and_light(browser: Any, mixed: Path) -> None:
    brightness = "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    shown = {}
    for scheme in ("light", "dark"):
        with visit(browser, mixed, color_scheme=scheme) as seen:
            system = seen.page.evaluate(brightness)
            seen.page.locator("#theme").click()
            shown[scheme] = (system, seen.page.evaluate(brightness))
            seen.page.reload()
            assert seen.page.evaluate(brightness) == shown[scheme][1]
    assert shown["light"] == shown["dark"][::-1]
    assert shown["light"][0] > 600
    assert shown["light"][1] < 150


def test_a_thousand_pictures(browser: Any, reported: Telling) -> None:
    reported.start(1000)
    for n in range(1000):
        reported.item(f"item-{n}", key(n))
    reported.end()
    with visit(browser, reported.page()) as seen:
        cards = seen.page.locator(CARDS)
        assert seen.texts(COUNT) == ["1,000"]
        assert 6 <= cards.count() < 100
        height = "document.documentElement.scrollHeight"
        before = seen.page.evaluate(height)
        seen.page.locator("#search").fill("item-777")
        assert seen.texts(".card .prompt") == ["a picture of item-777"]
        seen.page.locator("#search").fill("item-99")
        assert seen.texts(COUNT) == ["11 of 1,000"]
        seen.page.locator("#search").fill("")
        assert seen.page.evaluate(height) == before
        # to the last by keyboard, far from what is drawn
        cards.first.focus()
        seen.page.keyboard.press("End")
        assert seen.page.evaluate("document.activeElement.title") == "a picture of item-999"
        assert cards.count() < 100
        seen.page.keyboard.press("Home")
        assert seen.page.evaluate("document.activeElement.title") == "a picture of item-0"


@pytest.mark.parametrize(
    ("suffixes", "title"),
    [
        ((".png", ".png"), "Pictures"),
        ((".mp4", ".webm"), "Videos"),
        ((".wav",), "Sounds"),
        ((".txt",), "Texts"),
        ((".png", ".txt"), "Outputs"),
    ],
)
def test_outputs_are_called_what_they_are(
    browser: Any, reported: Telling, suffixes: tuple[str, ...], title: str
) -> None:
    reported.start(len(suffixes))
    for n, suffix in enumerate(suffixes):
        reported.item(f"item-{n}", key(n), suffix=suffix)
    reported.end()
    with visit(browser, reported.page()) as seen:
        assert seen.texts("#outputs-title") == [title]


@pytest.mark.parametrize(
    ("suffix", "thumbnail", "player"),
    [
        (".webp", "img", "a img"),
        (".gif", "img", "a img"),
        (".mp4", "video[muted]", "video[controls]"),
        (".wav", ".glyph", "audio[controls]"),
    ],
)
def test_what_is_shown_moves_or_sounds_has_its_element(
    browser: Any, reported: Telling, suffix: str, thumbnail: str, player: str
) -> None:
    clip, sound = np.zeros((4, 32, 32, 3), np.float32), np.zeros((1, 4_000), np.float32)
    still, heard = Result(picture=clip[0]), Result(sound=sound, rate=16_000)
    made = {".webp": still, ".wav": heard}.get(suffix, Result(clip=clip))
    reported.start(1)
    reported.item("fox", key(1), suffix=suffix, data=encoded(made, suffix[1:]).data)  # type: ignore[arg-type]
    reported.end()
    with visit(browser, reported.page()) as seen:
        assert seen.page.locator(f".card .frame > {thumbnail}").count() == 1
        seen.page.locator(CARDS).first.click()
        shown = seen.page.locator(f"#viewer .stage-light > {player}")
        assert (shown.get_attribute("src") or "").endswith(f"fox-{key(1)[:8]}{suffix}")
        seen.page.keyboard.press("Escape")
        shown.wait_for(state="detached")  # nothing plays on behind


def test_warnings_failures_and_times_are_counted(browser: Any, reported: Telling) -> None:
    reported.start(3)
    for item in ("fox", "owl"):
        reported.events.emit(Warned(kind="prompt_cut", message=HOSTILE, stage="draw", item=item))
    reported.item("fox", key(1), seconds=2.0)
    reported.item("twin", key(1), seconds=2.0)
    reported.item("owl", key(2), "ValueError: no", seconds=4.0)
    reported.end(1)
    with visit(browser, reported.page()) as seen:
        assert seen.texts("#failures-title") == ["Failures 1"]
        assert seen.texts("#warnings-title") == ["Warnings 2"]
        assert seen.texts("#warning-list summary") == ["prompt cut in draw 2"]
        assert seen.texts("#warning-list li") == [f"fox: {HOSTILE}", f"owl: {HOSTILE}"]
        # eight seconds for the stage, and imports are no item's
        assert "8.0 s · 3.0 s an item" in seen.texts(".stage .about")


def test_a_fall_and_a_stopped_run_are_reported(browser: Any, reported: Telling) -> None:
    reported.start(1)
    held = {"vram": None, "ram": 3 << 30}
    reported.fall(held)
    reported.events.emit(
        RunFinished(exit_code=7, outputs=[], seconds=2.0, error="stage 'draw': its <i>worker</i> died")
    )
    with visit(browser, reported.page()) as seen:
        assert seen.texts(".fall") == [
            "Ran out of memory as resident, which held 3.00 GiB of RAM; continued as stream."
        ]
        assert seen.texts(".notice") == ["stage 'draw': its <i>worker</i> died"]
        assert seen.texts("#nothing") == ["There is nothing yet."]


def test_the_page_follows_a_run_and_outlives_its_end(browser: Any, toy: Project) -> None:
    toy.write("wait.toml", toy_plugin.BEHAVING.format("wait"))
    page, flags = toy.folder / "runs/toy/report.html", toy.folder / "flags"

    def has_first() -> bool:
        return page.exists() and any(card["id"] == "first" for card in data_of(page)["cards"])

    with toy.start("run", "wait.toml") as run:
        wait_until(has_first, 30, "the page shows the first item while the second goes on")
        with visit(browser, page) as seen:
            assert seen.texts(STATE) == ["running"]
            assert seen.texts(".card .badge") == ["Unfinished"]
            assert seen.texts(".stage h3") == ["make"]
            assert seen.page.locator("#updates").is_visible()
        run.send_signal(signal.SIGKILL)
        run.communicate()

    (flags / "item.go").touch()
    outcome = toy.runner("run", "wait.toml")
    assert outcome.code == 0, outcome
    with visit(browser, page) as seen:
        assert seen.texts(STATE) == ["done"]
        assert seen.texts(".card .prompt") == ["first", "x"]
        assert seen.page.locator(".card .badge").count() == 0
        assert [text.rpartition(", ")[2] for text in seen.texts("#runs option")] == ["done", "not ended"]
        assert not seen.page.locator("#updates").is_visible()
