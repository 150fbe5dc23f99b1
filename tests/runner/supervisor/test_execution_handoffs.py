"""Hand-offs of whole runs with workers by a script: when they go, and which of them stay."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import toy_plugin
from scripted import run
from scripted_chain import MANIFEST, directory, handoffs

from runner.errors import ExitCode

if TYPE_CHECKING:
    from project import Project


def test_a_damaged_handoff_is_gone_before_it_is_made_again(chain: Project) -> None:
    run(chain, "chain.toml")
    shutil.rmtree(directory(chain).outputs)
    damaged = handoffs(chain, "two")[0]
    damaged.write_bytes(b"damaged")
    ran = run(
        chain,
        "chain.toml",
        "assert not any(places[i].handoff and places[i].handoff.exists() for i in ids)\ndone(*ids); finish()",
    )
    assert ran.code == ExitCode.DONE
    assert [(s, e) for s, _, e in ran.made] == [("two", "done"), ("three", "done"), ("three", "done")]


def test_needed_handoffs_go_when_the_last_that_takes_from_them_is_done(chain: Project) -> None:
    ran = run(chain, "chain.toml", sets=["run.keep_handoffs=needed"])
    assert ran.code == ExitCode.DONE
    assert handoffs(chain, "one") == handoffs(chain, "two") == []
    assert len(list(directory(chain).outputs.glob("*.txt"))) == 2
    again = run(chain, "chain.toml", sets=["run.keep_handoffs=needed"])
    assert again.of("stage_started") == []


def test_needed_handoffs_of_a_failed_item_stay(chain: Project) -> None:
    script = "[fail(i) if job.name == 'three' and i == 'a' else done(i) for i in ids]; finish()"
    ran = run(chain, "chain.toml", script, sets=["run.keep_handoffs=needed"])
    assert ran.code == ExitCode.ITEMS_FAILED
    key = {(e["stage"], e["item"]): e["key"] for e in ran.of("item_finished")}
    assert [path.stem for path in handoffs(chain, "two")] == [key["two", "a"]]
    assert handoffs(chain, "one") == []
    # and the next run needs no other stage
    assert run(chain, "chain.toml", sets=["run.keep_handoffs=needed"]).made == [("three", "a", "done")]


def test_what_is_not_needed_of_an_interrupted_run_is_removed_at_the_start(chain: Project) -> None:
    run(chain, "chain.toml")
    assert len(handoffs(chain, "one")) == 2
    run(chain, "chain.toml", sets=["run.keep_handoffs=needed"])
    assert handoffs(chain, "one") == handoffs(chain, "two") == []


def test_a_handoff_stays_as_long_as_another_item_takes_from_it(chain: Project) -> None:
    """Two items that differ in the last stage alone."""
    text = MANIFEST.replace('prompt = "b"', 'prompt = "a"\nending = "!"')
    chain.write("chain.toml", text)
    there: list[int] = []

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "item_finished" and event["stage"] == "three":
            there.append(len(handoffs(chain, "two")))

    ran = run(chain, "chain.toml", sets=["run.keep_handoffs=needed"], listen=look)
    assert ran.code == ExitCode.DONE
    assert [e["items"] for e in ran.of("stage_started")] == [2, 2, 2]
    assert there == [1, 0]


def test_what_a_last_stage_hands_off_is_for_people_and_stays(toy: Project) -> None:
    toy.write("toy.toml", toy_plugin.MANIFEST.replace(WRITE, ""))
    for expected in (["make"], []):
        ran = run(toy, "toy.toml", sets=["run.keep_handoffs=needed"])
        assert [e["stage"] for e in ran.of("stage_started")] == expected
        assert len(list((toy.folder / "runs/toy/handoff/make").glob("*.safetensors"))) == 2


WRITE = """\
[[stage]]
name = "write"
uses = "toy.write"
"""
SOUNDS = """
from runner.api import File, Stage, Text, hookimpl
RUNNER_API = 1

@hookimpl
def runner_stages():
    sound = File("sound", ".wav")
    return [
        Stage("sounds.make", "sounds:start", params="chain:First", outputs=(sound,)),
        Stage("sounds.take", "sounds:start", inputs=(sound,), outputs=(Text("t"),)),
    ]
"""


def test_files_beside_a_handoff_go_with_it(chain: Project) -> None:
    chain.plugin("sounds", SOUNDS)
    head, items = MANIFEST.partition("[[stage]]")[0], MANIFEST.partition("[[item]]")[2]
    stages = "".join(f'[[stage]]\nname = "{name}"\nuses = "sounds.{name}"\n' for name in ("make", "take"))
    chain.write("chain.toml", f"{head}{stages}[[item]]{items}")
    there: list[int] = []

    def look(event: dict[str, Any]) -> None:
        if event["event"] == "stage_finished":
            there.append(len(list((directory(chain).path / "handoff/make").glob("*.wav"))))

    ran = run(chain, "chain.toml", sets=["run.keep_handoffs=needed"], listen=look)
    assert ran.code == ExitCode.DONE
    assert there == [2, 0]
