"""Parameters that are files: found beside what names them, in the key by their content, read by stages."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import tomli
from file_plugin import ITEM, STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from project import Outcome, Project


def pages(project: Project, run: str = "look") -> list[str]:
    return sorted(path.read_text() for path in (project.folder / f"runs/{run}/outputs").glob("*.txt"))


def ran(project: Project, *options: str) -> Outcome:
    outcome = project.runner("run", "look.toml", *options)
    assert outcome.code == 0, outcome
    return outcome


def page(project: Project) -> Path:
    (found,) = (project.folder / "runs/look/outputs").glob("*.txt")
    return found


def keys(project: Project) -> list[str]:
    explained = json.loads(project.invoke("explain", "look.toml", "--json").stdout)
    return [stage["key"] for item in explained["items"] for stage in item["stages"]]


def test_files_are_read_by_the_stage_and_a_run_is_kept_that_finds_them(look: Project) -> None:
    home = look.folder / "home"
    look.write("home/mask.txt", "a mask")
    look.environment["HOME"] = str(home)
    table = STAGES.replace('"look.read"', '"look.read"\n[stage.with]\nframes = "frames"\nmask = "~/mask.txt"')
    look.write("look.toml", table + ITEM + f'more = ["./pics/owl.txt", "{look.folder}/pics/owl.txt"]\n')
    ran(look)
    assert pages(look) == ["a fox an owl an owl a mask first second"]
    # the manifest in the run directory names the same files from there
    kept = tomli.loads((look.folder / "runs/look/manifest.toml").read_text())
    assert kept["stage"][0]["with"] == {"frames": "../../frames", "mask": "~/mask.txt"}
    assert kept["item"][0]["image"] == "../../pics/fox.txt"
    assert kept["item"][0]["more"] == ["../../pics/owl.txt", f"{look.folder}/pics/owl.txt"]
    again = look.runner("run", "runs/look/manifest.toml", "--json")
    assert again.code == 0, again
    assert '"item_finished"' not in again.stdout


@pytest.mark.parametrize("name", ["items.jsonl", "items.csv"])
def test_paths_in_a_file_of_items_start_at_that_file(look: Project, name: str) -> None:
    """Those of the manifest's own tables start at the manifest."""
    shutil.move(look.folder / "pics", look.folder / "lists/pics")
    look.write("pics/mask.txt", "a mask")
    text = (
        '{"image": "pics/fox.txt"}\n{"image": "pics/owl.txt"}'
        if name.endswith("jsonl")
        else ("image\npics/fox.txt\npics/owl.txt")
    )
    look.write(f"lists/{name}", text)
    shared = STAGES.replace("[[stage]]", '[with]\nmask = "pics/mask.txt"\n[[stage]]', 1)
    look.write("look.toml", f'{shared}[batch]\nfile = "lists/{name}"\n')
    ran(look)
    assert pages(look) == ["a fox a mask", "an owl a mask"]
    assert tomli.loads((look.folder / "runs/look/manifest.toml").read_text())["with"]["mask"] == (
        "../../pics/mask.txt"
    )


def test_the_key_has_the_content_and_neither_path_nor_time(look: Project) -> None:
    first = keys(look)
    shutil.copy(look.folder / "pics/fox.txt", look.folder / "copy.txt")
    look.write("look.toml", (STAGES + ITEM).replace("pics/fox.txt", "copy.txt"))
    assert keys(look) == first
    (look.folder / "copy.txt").write_text("a cat")  # of the same size
    assert keys(look) != first
    (look.folder / "copy.txt").write_text("a fox")
    assert keys(look) == first


@pytest.mark.parametrize("change", ["name", "content", "more", "below"])
def test_the_key_has_the_names_and_contents_of_a_folder(look: Project, change: str) -> None:
    text = (STAGES + ITEM).replace("image =", 'frames = "frames"\nimage =')
    look.write("frames/below/3.txt", "third")
    look.write("look.toml", text)
    first = keys(look)
    shutil.copytree(look.folder / "frames", look.folder / "copy")
    look.write("look.toml", text.replace('"frames"', '"copy"'))
    assert keys(look) == first
    if change == "name":
        (look.folder / "copy/1.txt").rename(look.folder / "copy/0.txt")
    elif change == "content":
        look.write("copy/1.txt", "other")
    else:
        look.write("copy/below/4.txt" if change == "below" else "copy/4.txt", "fourth")
    assert keys(look) != first


def test_another_content_makes_the_output_anew_and_explain_names_the_files(look: Project) -> None:
    ran(look)
    look.write("look.toml", (STAGES + ITEM).replace("fox", "owl"))
    explained = look.invoke("explain", "look.toml", "--stage", "read")
    assert "image: pics/fox.txt " in explained.stdout, explained
    assert " -> pics/owl.txt " in explained.stdout
    ran(look)
    assert pages(look) == ["a fox", "an owl"]


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_what_it_was(look: Project) -> None:
    look.write("look.toml", STAGES + ITEM + 'mode = "changing"\n')
    outcome = look.runner("run", "look.toml")
    assert outcome.code == 1, outcome
    assert "the file of 'image' was changed since the run began: run again" in outcome.stderr
    assert not (look.folder / "runs/look/outputs").exists() or not pages(look)


def test_a_file_that_changed_after_its_key_was_made_is_refused(look: Project) -> None:
    look.write("mask.txt", "a mask")
    look.environment["LOOK_AT"] = str(look.folder / "mask.txt")
    text = STAGES.replace('"look.show"', '"look.show"\nwith = { mask = "mask.txt" }')
    look.write("look.toml", text + ITEM + 'mode = "late"\n')
    outcome = look.runner("run", "look.toml")
    assert outcome.code == 1, outcome
    assert "the file of 'mask' was changed since the run began: run again" in outcome.stderr


def test_an_output_is_made_again_from_the_files_or_says_what_changed(look: Project) -> None:
    ran(look)
    made = page(look)
    record: dict[str, Any] = json.loads(made.with_name(f"{made.name}.runner.json").read_text())
    read = record["lineage"]["read"]
    assert read["as_written"] == {"image": "pics/fox.txt"}
    assert read["params"]["image"].startswith("sha256:")
    again = look.runner("reproduce", str(made))
    assert again.code == 0, again
    (look.folder / "pics/fox.txt").write_text("a cat")
    changed = look.runner("reproduce", str(made))
    assert changed.code == 4, changed
    assert "cannot be made again: what it was made from is not what is here" in changed.stderr
    assert "read: image: " in changed.stderr
    (look.folder / "pics/fox.txt").unlink()
    gone = look.runner("reproduce", str(made))
    assert gone.code == 3, gone
    assert f"there is no file {look.folder}/pics/fox.txt" in gone.stderr


def test_nothing_of_a_content_is_written(look: Project) -> None:
    look.write("secret.txt", "hunter2-hunter2")
    text = STAGES.replace('"look.show"', '"look.show"\nwith = { mask = "secret.txt" }')
    look.write("look.toml", text + ITEM)
    ran(look)
    look.runner("explain", "look.toml")
    written = [*(look.folder / "runs").rglob("*"), *(look.folder / "cache").rglob("*.json")]
    for path in written:
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    # people see the path
    journal = (look.folder / "runs/look/journal.jsonl").read_text()
    finished = [json.loads(line) for line in journal.splitlines() if '"item_finished"' in line]
    assert finished[-1]["params"]["mask"] == "secret.txt"


def test_what_a_plugin_declares_is_shown_and_its_checks_say_what_they_need(look: Project) -> None:
    shown = json.loads(look.invoke("plugins", "show", "look.read", "--json").stdout)
    parameters = shown.get("parameters") or shown["stages"][0]["parameters"]
    types = {one["name"]: one["type"] for one in parameters}
    assert (types["image"], types["more"], types["frames"]) == ("file", "list of file", "file or folder")
    checked = look.runner("plugins", "check", "look")
    assert "'image' is a file, which only you can give" in checked.stdout + checked.stderr, checked
    look.write("two.toml", STAGES + ITEM + ITEM.replace("one", "two").replace("fox", "owl"))
    checked = look.runner("plugins", "check", "look", "--manifest", "two.toml")
    assert checked.code == 0, checked
    assert "'image' is a file" not in checked.stdout + checked.stderr
