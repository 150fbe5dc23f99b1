"""Runs from the outside: what is made, what is left alone, what happens to items that fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pages import data_of
from toy_plugin import STAGES

from runner.files.handoff import read
from runner.rundir.journal import read_journal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from project import Project


def with_items(*items: Mapping[str, object]) -> str:
    tables = ["\n".join(f"{k} = {json.dumps(v)}" for k, v in item.items()) for item in items]
    return STAGES + "".join(f"[[item]]\n{table}\n" for table in tables)


def test_a_run_leaves_outputs_sealed_handoffs_and_a_journal(toy: Project) -> None:
    outcome = toy.runner("run", "toy.toml", "--json")

    assert outcome.code == 0, outcome
    started = [(e["stage"], e["items"]) for e in outcome.of("stage_started")]
    assert started == [("make", 2), ("write", 2)]
    pages = [p for p in toy.outputs("toy") if p.endswith(".txt")]
    assert [name.partition("-")[0] for name in pages] == ["one", "two"]
    finished = outcome.of("run_finished")[0]
    assert finished["exit_code"] == 0
    assert {Path(path).name for path in finished["outputs"]} == set(pages)
    made = {e["item"]: e["key"] for e in outcome.of("item_finished") if e["stage"] == "make"}
    handoff = read(toy.folder / "runs/toy/handoff/make" / f"{made['one']}.safetensors", made["one"])
    assert {"key", "item", "stage", "versions", "device", "digest"} <= set(handoff.header.metadata)
    assert handoff.text == {"caption": "ONE"}
    assert handoff.lineage["make"]["params"] == {"prompt": "one", "seed": 0, "steps": 2, "behave": "well"}
    journal = [e.event for e in read_journal(toy.folder / "runs/toy/journal.jsonl")]
    assert journal[0] == "run_started"
    assert journal[-1] == "run_finished"


def test_only_what_is_missing_is_made(toy: Project) -> None:
    toy.runner("run", "toy.toml")
    first = toy.outputs("toy")

    def again(*arguments: str) -> list[tuple[str, int]]:
        outcome = toy.runner("run", "toy.toml", "--json", *arguments)
        assert outcome.code == 0, outcome
        return [(e["stage"], e["items"]) for e in outcome.of("stage_started")]

    assert again() == []
    assert toy.outputs("toy") == first
    # a parameter of the last stage: what the first made is used again, and nothing is overwritten
    assert again("--set", "stage.write.with.ending=!") == [("write", 2)]
    assert first.items() <= toy.outputs("toy").items()
    # another prompt: one item
    assert again("--prompt", "one", "--prompt", "three") == [("make", 1), ("write", 1)]
    # a picture that was deleted: the last stage, from the hand-off that is there
    gone = next(name for name in first if name.startswith("two") and name.endswith(".txt"))
    (toy.folder / "runs/toy/outputs" / gone).unlink()
    assert again() == [("write", 1)]
    assert toy.outputs("toy")[gone] == first[gone]
    # hand-offs that no output needs any more are not asked for
    for handoff in (toy.folder / "runs/toy/handoff/make").iterdir():
        handoff.unlink()
    assert again() == []
    assert again("--fresh", "write") == [("make", 2), ("write", 2)]
    assert again("--fresh", "write") == [("write", 2)]
    assert again("--fresh") == [("make", 2), ("write", 2)]
    assert first.items() <= toy.outputs("toy").items()


def test_damaged_handoffs_are_made_again(toy: Project) -> None:
    toy.runner("run", "toy.toml")
    first = toy.outputs("toy")
    one, two = sorted((toy.folder / "runs/toy/handoff/make").iterdir())
    whole = {path: path.read_bytes() for path in (one, two)}
    flipped = bytearray(whole[one])
    flipped[-1] ^= 1
    one.write_bytes(flipped)
    two.write_bytes(whole[two][:-1])
    for output in (toy.folder / "runs/toy/outputs").glob("*.txt"):
        output.unlink()

    outcome = toy.runner("run", "toy.toml", "--json")

    assert [(e["stage"], e["items"]) for e in outcome.of("stage_started")] == [("make", 2), ("write", 2)]
    assert {path: path.read_bytes() for path in (one, two)} == whole
    assert toy.outputs("toy") == first


def test_items_that_are_made_of_the_same_share_and_renamed_ones_are_linked(toy: Project) -> None:
    batch = [{"id": "a", "prompt": "x"}, {"id": "b", "prompt": "x"}, {"id": "c", "prompt": "y"}]
    toy.write("toy.toml", with_items(*batch))
    planned = json.loads(toy.invoke("plan", "toy.toml", "--json").stdout)["stages"]
    assert [(s["todo_items"], len(s["todo"]), s["cached"]) for s in planned] == [(3, 2, 0)] * 2
    assert "3 of 3 items (2 distinct)" in toy.invoke("plan", "toy.toml").stdout
    outcome = toy.runner("run", "toy.toml", "--json")
    assert [(e["items"], e["distinct"]) for e in outcome.of("stage_started")] == [(3, 2)] * 2
    assert [e["done"] for e in outcome.of("stage_finished")] == [3, 3]
    assert "make: 3 items (2 distinct) (resident)" in outcome.stderr
    (run,) = json.loads(toy.invoke("runs", "show", "toy", "--json").stdout)["runs"]
    assert (run["items"], run["made"], run["done"]) == (3, 3, 3)
    assert [(s["items"], s["distinct"], s["done"]) for s in run["stages"]] == [(3, 2, 3)] * 2
    page = data_of(toy.folder / "runs/toy/report.html")["runs"][0]
    assert (page["items"], page["made"]) == (3, 3)
    assert [(s["items"], s["distinct"], s["done"]) for s in page["stages"]] == [(3, 2, 3)] * 2
    assert [e["item"] for e in outcome.of("item_finished")] == ["a", "b", "c"] * 2
    pages = {n: d for n, d in toy.outputs("toy").items() if n.endswith(".txt")}
    assert len(pages) == 3
    assert len(set(pages.values())) == 2

    toy.write("toy.toml", with_items({"id": "d", "prompt": "x"}))
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.of("stage_started") == []
    (linked,) = outcome.of("run_finished")[0]["outputs"]
    assert Path(linked).name.startswith("d-")
    assert Path(linked).read_bytes() in pages.values()
    assert f"nothing to do; 1 output: {Path(linked).relative_to(toy.folder)}" in outcome.stderr


def test_what_no_dtype_of_the_handoff_can_hold_fails_with_one_that_can(toy: Project) -> None:
    toy.write("toy.toml", with_items({"id": "large", "prompt": "x", "behave": "large"}))
    saved_as = "--set", "stage.make.save_dtype=float16"
    outcome = toy.runner("run", "toy.toml", *saved_as)
    assert outcome.code == 1, outcome
    assert "'numbers' holds NaN or infinite values as float16" in outcome.stderr
    assert 'set save_dtype = "float32" or "bfloat16"' in outcome.stderr


def test_an_item_that_fails_stops_nobody_else(toy: Project) -> None:
    words = {
        "raise": "ValueError: raise cannot be made",
        "nan": "'numbers' holds NaN or infinite values",
        "inf": "'numbers' holds NaN or infinite values as float32",
        "complex": "'extra' holds NaN or infinite values as complex64",
        "rank": "'numbers' has shape (1, 4), declared is ('N',)",
        "integers": "'numbers' is int64, declared is floating",
        "missing": "toy.make did not return 'numbers'",
        "undeclared": "returned 'more', which it does not declare",
        "nothing": "returned NoneType, not a dict",
    }
    items = [{"id": how, "prompt": "x", "behave": how} for how in (*words, "print")]
    toy.write("toy.toml", with_items(*items, {"id": "good", "prompt": "good"}))

    outcome = toy.runner("run", "toy.toml", "--json")

    assert outcome.code == 1, outcome
    made = {e["item"]: e for e in outcome.of("item_finished") if e["stage"] == "make"}
    for how, message in words.items():
        assert made[how]["status"] == "failed"
        assert message in made[how]["error"]
        assert "Traceback" in made[how]["traceback"]
    assert made["good"]["status"] == made["print"]["status"] == "done"
    assert [e["item"] for e in outcome.of("item_finished") if e["stage"] == "write"] == ["print", "good"]
    assert [e["failed"] for e in outcome.of("stage_finished")] == [len(words), 0]
    assert len([p for p in toy.outputs("toy") if p.endswith(".txt")]) == 2
    logs = "".join(p.read_text() for p in (toy.folder / "runs/toy/logs").glob("*make.log"))
    assert "a line on stdout" in logs
    assert "a line on stderr" in logs


def test_numbers_drawn_without_a_generator_do_not_depend_on_the_batch(toy: Project) -> None:
    random, other = (
        {"id": "r", "prompt": "r", "behave": "random"},
        {"id": "o", "prompt": "o", "behave": "random"},
    )
    toy.write("toy.toml", with_items(random, other))
    toy.runner("run", "toy.toml")
    before = toy.outputs("toy")
    toy.write("toy.toml", with_items(other, random))
    toy.runner("run", "toy.toml", "--fresh")
    assert toy.outputs("toy") == before
    assert len({d for n, d in before.items() if n.endswith(".txt")}) == 2


def test_the_manifest_is_kept_as_it_was_run(toy: Project) -> None:
    toy.write("in/toy.toml", STAGES + '# a comment\n[batch]\nfile = "prompts.txt"\n')
    toy.write("in/prompts.txt", "one\n")
    toy.runner("run", "in/toy.toml", "--set", "stage.make.with.steps=7")
    kept = toy.folder / "runs/toy/manifest.toml"
    assert "# a comment" in kept.read_text()
    assert "steps = 7" in kept.read_text()
    # and does the same from there
    outcome = toy.runner("run", str(kept), "--json")
    assert (outcome.code, outcome.of("stage_started")) == (0, []), outcome
