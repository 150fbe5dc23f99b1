"""Declarations with a wrong field: the error names the field, and what to write."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from project import Project

HEAD = """
from runner.api import Component, File, Stage, Tensor, Text, hookimpl
RUNNER_API = 1
"""
FIELDS = {
    "outputs=('prompt',)": 'outputs[0] is \'prompt\', not a Tensor or Text or File or Bundle: write Tensor("prompt"), Text("prompt"), Bundle(',
    "outputs='prompt'": "outputs is 'prompt', not a tuple of Tensor or Text or File or Bundle: write (Tensor(\"prompt\"), Text(",
    "outputs=(Text,)": "outputs[0] is the class Text, not a Tensor or Text or File or Bundle",
    "outputs=None": "outputs is None, not a tuple of",
    "outputs=(Text('t', 'yes'),)": "outputs[0]: optional is 'yes'; write optional=True or optional=False",
    "outputs=(Text(3),)": "outputs[0]: name is not a string: 3",
    "outputs=(File('t', 'png'),)": "output 'tpng' cannot be part of a file name; write '.png'",
    "outputs=(File('t', '.{format}'),)": "outputs[0]: suffix '.{format}' is for a stage that has parameters",
    "inputs=(File('t', '.{format}'),), params='a:B'": "inputs[0]: suffix '.{format}' is for an output",
    "outputs=(File('t', '.{../x}'),), params='a:B'": "output 't.{../x}' cannot be part of a file name",
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


def test_errors_name_the_field_and_what_to_write(project: Project) -> None:
    expected = {}
    for n, (fields, words) in enumerate(FIELDS.items()):
        given = {"name": "'fields.s'", "start": "'fields:start'"}
        rest = ", ".join(f"{name}={value}" for name, value in given.items() if not fields.startswith(name))
        project.plugin(f"field{n}", f"{HEAD}@hookimpl\ndef runner_stages(): return [Stage({fields}, {rest})]")
        expected[f"field{n}"] = words
    for n, (value, words) in enumerate(RETURNED.items()):
        project.plugin(f"hook{n}", f"{HEAD}@hookimpl\ndef runner_stages(): return {value}")
        expected[f"hook{n}"] = words
    listed = json.loads(project.invoke("plugins", "list", "--json").stdout)
    reasons = {broken["name"]: broken["reason"] for broken in listed["broken"]}
    for name, words in expected.items():
        assert words in reasons[name]
