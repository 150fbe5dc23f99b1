"""Broken plugins: each is reported in one line, and is an error only for manifests that need it."""

from __future__ import annotations

import gc
import json
from typing import TYPE_CHECKING

import pytest

from runner.errors import PluginError
from runner.plugins import load_object

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

HEAD = """
from runner.api import Stage, Text, hookimpl
RUNNER_API = 1
"""
STAGES = """
@hookimpl
def runner_stages():
    return [Stage(name="{name}.stage", outputs=(Text("t"),), start="{name}:start")]
"""

BROKEN = {
    "importing": ("import no_such_module_anywhere", "ModuleNotFoundError: No module named"),
    "syntax": ("def", "SyntaxError"),
    "exiting": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "versionless": ("", "it sets no RUNNER_API; this runner supports 1"),
    "truthful": ("RUNNER_API = True", "it sets RUNNER_API = True; this runner supports 1"),
    "wordless": (
        "class Wordless(Exception):\n    def __str__(self): raise KeyError\nraise Wordless",
        "Wordless",
    ),
    "future": ("RUNNER_API = 2", "it sets RUNNER_API = 2; this runner supports 1"),
    "misspelt": (
        HEAD + "@hookimpl\ndef runner_stage(): return []",
        "there is no hook runner_stage; did you mean runner_stages?",
    ),
    "unmarked": (HEAD + "def runner_stages(): return []", "runner_stages is not marked with @hookimpl"),
    "greedy": (
        HEAD + "@hookimpl\ndef runner_run_started(run, weather): pass",
        "PluginValidationError",
    ),
    "raising": (HEAD + "@hookimpl\ndef runner_stages(): raise KeyError('x')", "KeyError: 'x'"),
    "untyped": (
        HEAD + "@hookimpl\ndef runner_stages(): return [Stage(name='u.s', outputs=(Text('t')), start='u:s')]",
        "stage 'u.s': outputs is Text('t'), not a tuple of Tensor or Text or File or Bundle: write (Text('t'),)",
    ),
    "unversioned": (
        HEAD + "@hookimpl\ndef runner_stages(): return [Stage(name='u.s', version='1', start='u:s')]",
        "version is not an integer: '1'; write version=2",
    ),
    "outgoing": (
        HEAD
        + "@hookimpl\ndef runner_stages(): return [Stage(name='u.s', outputs=(Text('../t'),), start='u:s')]",
        "output '../t' cannot be part of a file name",
    ),
    "wandering": (
        HEAD.replace("Text", "File")
        + "@hookimpl\n"
        + "def runner_stages(): return [Stage(name='u.s', outputs=(File('t', '/../../x'),), start='u:s')]",
        "output 't/../../x' cannot be part of a file name",
    ),
    "stageless": (
        HEAD + "@hookimpl\ndef runner_stages(): return ['stage']",
        "returned 'stage', which is not a Stage",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_reported_and_fails_only_manifests_that_use_it(toy: Project, name: str) -> None:
    source, words = BROKEN[name]
    toy.plugin(name, source, distribution=f"dist-{name}")

    listed = toy.invoke("plugins", "list", "--json")
    found = json.loads(listed.stdout)
    assert listed.code == 0
    assert [(b["name"], b["distribution"]) for b in found["broken"]] == [(name, f"dist-{name}")]
    assert words in found["broken"][0]["reason"]
    assert "toy" in [p["name"] for p in found["plugins"]]

    # a manifest that does not use it
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 0, outcome
    assert outcome.stderr.count(f"plugin '{name}' (from dist-{name}) is set aside") == 1

    outcome = toy.invoke("validate", "toy.toml", "--set", f"stage.make.uses={name}.stage")
    assert outcome.code == 4, outcome
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_stage_that_two_plugins_offer_is_not_available(toy: Project) -> None:
    for name in ("left", "right"):
        toy.plugin(name, HEAD + STAGES.format(name="both"), distribution=f"dist-{name}")
    outcome = toy.invoke("validate", "toy.toml", "--set", "stage.make.uses=both.stage")
    assert outcome.code == 4
    assert "dist-left (left) and dist-right (right) both offer it" in outcome.stderr
    assert toy.invoke("validate", "toy.toml").code == 0


def test_a_stage_belongs_to_the_plugin_that_it_is_named_after(toy: Project) -> None:
    toy.plugin("badtoy", HEAD + STAGES.format(name="toy").replace("toy.stage", "toy.make"))
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 0, outcome
    assert "stage 'toy.make' of badtoy" in toy.invoke("doctor", "--no-measure").stdout
    listed = json.loads(toy.invoke("plugins", "list", "--json").stdout)
    assert [b["reason"] for b in listed["broken"]] == ["badtoy-plugin (badtoy) offers it, and it is toy's"]


def test_what_a_plugin_prints_goes_to_stderr(toy: Project) -> None:
    toy.plugin("chatty", "print('hello')\n" + HEAD + STAGES.format(name="chatty"))
    outcome = toy.invoke("plugins", "list", "--json")
    assert {p["name"] for p in json.loads(outcome.stdout)["plugins"]} >= {"chatty", "toy"}
    assert "hello" in outcome.stderr


def test_two_plugins_of_one_name(toy: Project) -> None:
    toy.plugin("first", HEAD + STAGES.format(name="first"), entry="same", distribution="dist-first")
    toy.plugin("second", HEAD + STAGES.format(name="second"), entry="same", distribution="dist-second")
    found = json.loads(toy.invoke("plugins", "list", "--json").stdout)
    assert [b["reason"] for b in found["broken"]] == [
        "another distribution has a plugin named 'same' already"
    ]


def test_a_parameter_model_that_cannot_be_imported_is_a_plugin_error(toy: Project) -> None:
    stage = 'Stage(name="pm.stage", outputs=(Text("t"),), start="pm:start", params="pm:Missing")'
    toy.plugin("pm", HEAD + f"@hookimpl\ndef runner_stages(): return [{stage}]")
    outcome = toy.invoke("validate", "toy.toml", "--set", "stage.make.uses=pm.stage")
    assert outcome.code == 4, outcome
    assert "cannot import 'pm:Missing'" in outcome.stderr


WATCHING = """
import json
from runner.api import hookimpl
RUNNER_API = 1

def note(run, *what):
    with open(run.directory / "noted", "a") as file:
        file.write(json.dumps(what) + "\\n")

@hookimpl
def runner_run_started(run):
    note(run, "run", list(run.stages), run.items)

@hookimpl
def runner_stage_started(run, stage):
    note(run, "stage", stage)

@hookimpl
def runner_item_finished(run, item):
    note(run, "item", item.stage, item.item, item.status)

@hookimpl
def runner_stage_finished(run, result):
    note(run, "stage done", result.stage, result.done, result.measured["ram"] > 0)

@hookimpl
def runner_run_finished(summary, run):
    note(run, "run done", summary.exit_code, [path.name[:3] for path in summary.outputs])
"""

RAISING = """
from runner.api import hookimpl
RUNNER_API = 1

class Wordless(Exception):
    def __str__(self):
        raise KeyError

@hookimpl
def runner_item_finished():
    raise RuntimeError("not my day")

@hookimpl
def runner_stage_started():
    raise Wordless

@hookimpl
def runner_stage_finished():
    print("on stdout")
    raise SystemExit(5)
"""


def test_lifecycle_hooks_are_called_and_one_that_raises_does_not_stop_the_run(toy: Project) -> None:
    toy.plugin("watching", WATCHING)
    toy.plugin("araising", RAISING)
    outcome = toy.runner("run", "toy.toml", "--json")
    assert outcome.code == 0, outcome
    assert outcome.events[-1]["event"] == "run_finished"
    assert "runner_stage_finished raised SystemExit: 5" in outcome.stderr
    assert "plugin 'araising': runner_item_finished raised RuntimeError: not my day" in outcome.stderr
    noted = [json.loads(line) for line in (toy.folder / "runs/toy/noted").read_text().splitlines()]
    assert noted == [
        ["run", ["make", "write"], 2],
        ["stage", "make"],
        ["item", "make", "one", "done"],
        ["item", "make", "two", "done"],
        ["stage done", "make", 2, True],
        ["stage", "write"],
        ["item", "write", "one", "done"],
        ["item", "write", "two", "done"],
        ["stage done", "write", 2, True],
        ["run done", 0, ["one", "two"]],
    ]


@pytest.mark.parametrize("last", ["", "raise ValueError"])
def test_garbage_is_collected_again_after_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "imported" if not last else "imported_with_an_error"
    (tmp_path / f"{name}.py").write_text(f"import gc\ncollects = gc.isenabled()\n{last}\n")
    if last:
        with pytest.raises(PluginError, match="ValueError"):
            load_object(f"{name}:collects")
    else:
        assert load_object(f"{name}:collects") is False
    assert gc.isenabled()
