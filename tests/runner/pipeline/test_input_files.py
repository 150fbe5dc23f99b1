"""Parameters that are files: found beside what names them, in the key by their content, checked when read."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import tomli

if TYPE_CHECKING:
    from pathlib import Path

    from project import Outcome, Project

PLUGIN = """
import os, pathlib
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from runner.api import File, InputFile, InputFolder, Stage, Text, hookimpl

RUNNER_API = 1


class Read(BaseModel):
    model_config = ConfigDict(extra="forbid")
    image: InputFile = Field(description="what is read")
    mask: InputFile | None = None
    more: list[InputFile] = []
    frames: InputFolder | None = None
    mode: Literal["plain", "changing", "late"] = "plain"


class Show(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mask: InputFile | None = None
    ending: str = ""


@hookimpl
def runner_stages():
    return (
        Stage("look.read", "look:read", params="look:Read", outputs=(Text("seen"),)),
        Stage("look.show", "look:show", params="look:Show", inputs=(Text("seen"),), outputs=(File("page", ".txt"),)),
    )


def words(path):
    if path.is_dir():
        return " ".join(words(one) for one in sorted(path.iterdir()))
    return path.read_text()


def read(ctx):
    def one(item):
        p = item.params
        if p.mode == "changing":
            p.image.write_text("changed while it was read")
        found = [p.image, *p.more] + [f for f in (p.mask, p.frames) if f]
        assert all(isinstance(f, pathlib.Path) and f.is_absolute() for f in found)
        if p.mode == "late":  # the next stage's file
            pathlib.Path(os.environ["LOOK_AT"]).write_text("changed before the next stage")
        return {"seen": " ".join(words(f) for f in found)}
    return one


def show(ctx):
    return lambda item: {"page": (item.inputs["seen"] + item.params.ending).encode()}
"""
STAGES = """\
version = 1
name = "look"
budget = { device = "cpu", threads = 1 }
[[stage]]
name = "read"
uses = "look.read"
[[stage]]
name = "show"
uses = "look.show"
"""
ITEM = """\
[[item]]
id = "one"
image = "pics/fox.txt"
"""


@pytest.fixture
def look(project: Project) -> Project:
    project.plugin("look", PLUGIN)
    project.write("pics/fox.txt", "a fox")
    project.write("pics/owl.txt", "an owl")
    project.write("frames/1.txt", "first")
    project.write("frames/2.txt", "second")
    project.write("look.toml", STAGES + ITEM)
    return project


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


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('"pics/fix.txt"', "there is no file {0}/pics/fix.txt; did you mean 'fox.txt'?"),
        ('"nowhere/fox.txt"', "there is no file {0}/nowhere/fox.txt"),
        ('"pics"', "{0}/pics is a folder; give a file in it"),
        ('"empty.txt"', "{0}/empty.txt is empty"),
        ('""', "the path of the file is empty"),
        ('"pipe"', "{0}/pipe is no regular file, but a pipe or a device"),
        ('"pointer.txt"', "run `git lfs pull`"),
        ('"https://example.com/fox.png"', "'https://example.com/fox.png' is a URL, which is not downloaded"),
        ("3", "'image' must be a string, not 3"),
        (r'"a\u0000b"', "is no path"),
        ('"pics/fox.txt"\nmore = ["pics/owl.txt", "pics/ox.txt"]', "there is no file {0}/pics/ox.txt"),
        ('"pics/fox.txt"\nframes = "nowhere"', "there is no file or folder {0}/nowhere"),
        ('"pics/fox.txt"\nframes = "hollow"', "{0}/hollow has no files in it"),
        (
            '"pics/fox.txt"\nframes = "linked"',
            "{0}/linked/away cannot be read: it is a link to another folder",
        ),
        ('"pics/fox.txt"\nframes = "dangling"', "{0}/dangling/gone cannot be read: it is no regular file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_where_it_is_named(
    look: Project, value: str, words: str
) -> None:
    look.write("empty.txt", "")
    look.write("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    os.mkfifo(look.folder / "pipe")
    for folder, link, target in (
        ("hollow", "", ""),
        ("linked", "away", "frames"),
        ("dangling", "gone", "none"),
    ):
        (look.folder / folder).mkdir()
        if link:
            (look.folder / folder / link).symlink_to(look.folder / target)
    look.write("look.toml", STAGES + ITEM.replace('"pics/fox.txt"', value))
    for command in ("validate", "plan"):
        outcome = look.invoke(command, "look.toml")
        assert outcome.code == 3, outcome
        line = 13 if "\n" in value else 12
        assert f"look.toml:{line}:" in outcome.stderr
        assert words.format(look.folder) in outcome.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read_is_refused(look: Project) -> None:
    (look.folder / "pics/fox.txt").chmod(0)
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 3, outcome
    assert "pics/fox.txt cannot be read: Permission denied" in outcome.stderr


def test_a_missing_file_of_a_list_is_refused_at_its_line(look: Project) -> None:
    look.write("lists/items.jsonl", '{"image": "../pics/fox.txt"}\n{"image": "fox.txt"}\n')
    look.write("look.toml", STAGES + '[batch]\nfile = "lists/items.jsonl"\n')
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 3, outcome
    assert f"items.jsonl:2:2: 'image': there is no file {look.folder}/lists/fox.txt" in outcome.stderr


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


def test_a_file_in_a_table_of_parameters_is_the_plugins_fault(look: Project) -> None:
    inner = "class Inner(BaseModel):\n    picture: InputFile\n    other: list['Inner'] = []\n\n\nclass Read"
    look.plugin(
        "look", PLUGIN.replace("class Read", inner).replace("image: ", "inner: Inner = None\n    image: ")
    )
    outcome = look.invoke("validate", "look.toml")
    assert outcome.code == 4, outcome
    assert (
        "the parameter 'inner' holds a file in a table: a file must be a parameter of its own"
        in outcome.stderr
    )


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
