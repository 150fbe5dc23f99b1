"""Plugins that are broken in every way: a line each, and fatal only where the manifest needs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
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
        "stage 'u.s': outputs is Text('t'), not a tuple of Tensor or Text or File: write (Text('t'),)",
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


FIELDS = {
    "outputs=('prompt',)": 'outputs[0] is \'prompt\', not a Tensor or Text or File: write Tensor("prompt"), Text("prompt") or',
    "outputs='prompt'": "outputs is 'prompt', not a tuple of Tensor or Text or File: write (Tensor(\"prompt\"), Text(",
    "outputs=(Text,)": "outputs[0] is the class Text, not a Tensor or Text or File",
    "outputs=None": "outputs is None, not a tuple of",
    "outputs=(Text('t', 'yes'),)": "outputs[0]: optional is 'yes'; write optional=True or optional=False",
    "outputs=(Text(3),)": "outputs[0]: name is not a string: 3",
    "outputs=(File('t', 'png'),)": "output 'tpng' cannot be part of a file name; write '.png'",
    "inputs=(Tensor('t', shape='CHW'),)": "inputs[0]: shape is 'CHW'; write a number or a letter for each dimension",
    "inputs=(Tensor('t', dtype=float),)": "inputs[0]: dtype is not a string: the class float",
    "components=('vae',)": 'components[0] is \'vae\', not a Component: write Component("vae", "package.module:Class")',
    "components=(Component('vae', Text),)": "components[0]: cls is the class Text; name it in a string: cls='runner.api.stage:Text'",
    "components=(Component('vae', 'torch.nn.Linear'),)": "cls is 'torch.nn.Linear'; name it in a string",
    "components=(Component('vae', 'a:B', blocks='layers'),)": "blocks is 'layers', not a tuple of str: write ('layers',)",
    "components=(Component('vae', 'a:B', float32=('wo',)),)": "float32 is ('wo',); write parts of names by dtype",
    "params=Text": "params is the class Text; name it in a string: params='runner.api.stage:Text'",
    "memory=runner_stages": ":runner_stages'",
    "preload='torch'": "preload is 'torch', not a tuple of str: write ('torch',)",
    "version=1.0": "version is not an integer: 1.0",
    "name='fields'": "a stage's name is PLUGIN.STAGE",
    "name='fields.my stage'": "a stage's name is PLUGIN.STAGE",
    "start='start'": "start is 'start'; name it in a string: start='package.module:name'",
}


RETURNED = {
    "Stage('one.s', 'one:start')": "runner_stages returned one Stage; return a tuple of them",
    "None": "runner_stages returned None; return a tuple",
    "'one.s'": "runner_stages returned 'one.s'; return a tuple",
    "{'one.s': 'one:start'}": "runner_stages returned 'one.s', which is not a Stage",
}


def test_a_field_that_is_wrong_is_named_with_what_to_write(project: Project) -> None:
    head = HEAD.replace("Stage, Text", "Component, File, Stage, Tensor, Text")
    expected = {}
    for n, (fields, words) in enumerate(FIELDS.items()):
        given = {"name": "'fields.s'", "start": "'fields:start'"}
        rest = ", ".join(f"{name}={value}" for name, value in given.items() if not fields.startswith(name))
        project.plugin(f"field{n}", f"{head}@hookimpl\ndef runner_stages(): return [Stage({fields}, {rest})]")
        expected[f"field{n}"] = words
    for n, (value, words) in enumerate(RETURNED.items()):
        project.plugin(f"hook{n}", f"{HEAD}@hookimpl\ndef runner_stages(): return {value}")
        expected[f"hook{n}"] = words
    told = json.loads(project.invoke("plugins", "list", "--json").stdout)["broken"]
    reasons = {broken["name"]: broken["reason"] for broken in told}
    for name, words in expected.items():
        assert words in reasons[name]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_costs_a_line_and_only_those_who_use_it_fail(toy: Project, name: str) -> None:
    source, words = BROKEN[name]
    toy.plugin(name, source, distribution=f"dist-{name}")

    listed = toy.invoke("plugins", "list", "--json")
    told = json.loads(listed.stdout)
    assert listed.code == 0
    assert [(b["name"], b["distribution"]) for b in told["broken"]] == [(name, f"dist-{name}")]
    assert words in told["broken"][0]["reason"]
    assert "toy" in [p["name"] for p in told["plugins"]]

    # a manifest that does not use it
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 0, outcome
    assert outcome.stderr.count(f"plugin '{name}' (from dist-{name}) is set aside") == 1

    outcome = toy.invoke("validate", "toy.toml", "--set", f"stage.make.uses={name}.stage")
    assert outcome.code == 4, outcome
    assert words in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_stage_that_two_plugins_claim_belongs_to_neither(toy: Project) -> None:
    for name in ("left", "right"):
        toy.plugin(name, HEAD + STAGES.format(name="both"), distribution=f"dist-{name}")
    outcome = toy.invoke("validate", "toy.toml", "--set", "stage.make.uses=both.stage")
    assert outcome.code == 4
    assert "dist-left (left) and dist-right (right) both offer it" in outcome.stderr
    assert toy.invoke("validate", "toy.toml").code == 0


def test_nobody_takes_a_stage_from_the_plugin_that_it_is_named_after(toy: Project) -> None:
    toy.plugin("badtoy", HEAD + STAGES.format(name="toy").replace("toy.stage", "toy.make"))
    outcome = toy.invoke("validate", "toy.toml")
    assert outcome.code == 0, outcome
    assert "stage 'toy.make' of badtoy" in toy.invoke("doctor", "--no-measure").stdout
    listed = json.loads(toy.invoke("plugins", "list", "--json").stdout)
    assert [b["reason"] for b in listed["broken"]] == ["badtoy-plugin (badtoy) offers it, and it is toy's"]


def test_what_a_plugin_prints_is_no_data(toy: Project) -> None:
    toy.plugin("chatty", "print('hello')\n" + HEAD + STAGES.format(name="chatty"))
    outcome = toy.invoke("plugins", "list", "--json")
    assert {p["name"] for p in json.loads(outcome.stdout)["plugins"]} >= {"chatty", "toy"}
    assert "hello" in outcome.stderr


def test_two_plugins_of_one_name(toy: Project) -> None:
    toy.plugin("first", HEAD + STAGES.format(name="first"), entry="same", distribution="dist-first")
    toy.plugin("second", HEAD + STAGES.format(name="second"), entry="same", distribution="dist-second")
    told = json.loads(toy.invoke("plugins", "list", "--json").stdout)
    assert [b["reason"] for b in told["broken"]] == ["another distribution has a plugin named 'same' already"]


def test_a_parameter_model_that_cannot_be_imported_is_the_plugins_fault(toy: Project) -> None:
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


def test_hooks_tell_of_a_run_and_one_that_raises_stops_nobody(toy: Project) -> None:
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
