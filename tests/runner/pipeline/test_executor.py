"""``[executor]``: who runs the stages, its own parameters, and that it changes no result."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import tomli
from jsonschema import Draft7Validator
from toy_plugin import MANIFEST

from runner.manifest.load import load
from runner.manifest.record import as_run
from runner.pipeline.binding import Pipeline, bind
from runner.plugins import discover

if TYPE_CHECKING:
    from project import Project

PLUGIN = """
from pydantic import BaseModel, Field
from runner.api import Executor, hookimpl

RUNNER_API = 1


class Params(BaseModel):
    nodes: int = Field(1, ge=1)
    address: str = "auto"


@hookimpl
def runner_executors():
    return (
        Executor("far", connect="far:connect", params="far:Params", summary="far away"),
        Executor("bare", connect="far:connect"),
    )
"""


@pytest.fixture
def far(toy: Project) -> Project:
    """The toy project, with a plugin of two executors."""
    toy.plugin("far", PLUGIN)
    return toy


def bound(project: Project, table: str, executor: str | None = None) -> Pipeline:
    project.write("far.toml", MANIFEST + table)
    with project.as_environment():
        return bind(load(project.folder / "far.toml", executor=executor), discover())


def refused(project: Project, table: str, *arguments: str) -> tuple[int, str]:
    project.write("far.toml", MANIFEST + table)
    outcome = project.invoke("run", "far.toml", "--dry-run", *arguments)
    return outcome.code, outcome.stderr


def test_this_machine_is_the_default_and_has_no_parameters(far: Project) -> None:
    assert bound(far, "").executor is None
    assert bound(far, '[executor]\nuses = "local"\n').executor is None
    code, reported = refused(far, "[executor]\nnodes = 3\n")
    assert code == 3
    assert "far.toml:16:1: executor 'local' has no parameter 'nodes'" in reported


def test_parameters_are_those_of_the_plugins_model(far: Project) -> None:
    chosen = bound(far, '[executor]\nuses = "far"\nnodes = 3\n').executor
    assert chosen is not None
    assert (chosen.spec.name, chosen.params.model_dump() if chosen.params else None) == (
        "far",
        {"nodes": 3, "address": "auto"},
    )
    bare = bound(far, '[executor]\nuses = "bare"\n').executor
    assert bare is not None
    assert bare.params is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nodes = 0", "far.toml:17:9: executor 'far': 'nodes': must be greater than or equal to 1, not 0"),
        ('nodes = "3"', "executor 'far': 'nodes' must be a whole number, not '3'"),
        ("node = 3", "far.toml:17:1: executor 'far' has no parameter 'node'; did you mean 'nodes'?"),
    ],
)
def test_what_is_wrong_with_them_is_reported_where_it_is(far: Project, line: str, words: str) -> None:
    code, reported = refused(far, f'[executor]\nuses = "far"\n{line}\n')
    assert code == 3
    assert words in reported


def test_an_executor_that_is_not_installed_is_a_missing_plugin(far: Project) -> None:
    for table, arguments, where in (
        ('[executor]\nuses = "moon"\n', (), "far.toml:16:8"),
        ("", ("--executor", "moon"), "--executor moon"),
    ):
        code, reported = refused(far, table, *arguments)
        assert code == 4
        assert f"{where}: executor 'moon' is offered by no installed plugin" in reported
        assert "`pip install runner-moon` brings it" in reported


def test_the_command_replaces_it_and_its_parameters(far: Project) -> None:
    table = '[executor]\nuses = "far"\nnodes = 3\n'
    assert bound(far, table, "local").executor is None
    again = bound(far, table, "far").executor
    assert again is not None
    assert again.params is not None
    assert again.params.model_dump()["nodes"] == 3
    other = bound(far, table, "bare").executor
    assert other is not None
    assert other.spec.name == "bare"


@pytest.mark.parametrize(
    ("before", "command", "after"),
    [
        ("", "far", {"uses": "far"}),
        ('[executor]\nuses = "far"\nnodes = 3\n', "local", {"uses": "local"}),
        ('[executor]\nuses = "far"\nnodes = 3\n', "far", {"uses": "far", "nodes": 3}),
        ('[executor]\nuses = "far"\nnodes = 3\n', None, {"uses": "far", "nodes": 3}),
    ],
)
def test_the_kept_manifest_has_what_was_used(
    far: Project, before: str, command: str | None, after: dict[str, object]
) -> None:
    manifest = bound(far, before, command).manifest
    assert tomli.loads(as_run(manifest, far.folder / "runs").decode())["executor"] == after


def test_it_is_in_no_key(far: Project) -> None:
    far.runner("run", "toy.toml")
    far.write("far.toml", MANIFEST + '[executor]\nuses = "far"\n')
    planned = json.loads(far.invoke("plan", "far.toml", "--json").stdout)
    assert [stage["cached"] for stage in planned["stages"]] == [2, 2]


def test_editors_know_executors_and_their_parameters(far: Project) -> None:
    schema = json.loads(far.invoke("schema").stdout)
    check = Draft7Validator(schema).is_valid

    def manifest(table: str) -> dict[str, object]:
        return tomli.loads(MANIFEST + table)

    assert check(manifest('[executor]\nuses = "far"\nnodes = 3\n'))
    assert check(manifest('[executor]\nuses = "bare"\n'))
    assert check(manifest('[executor]\nuses = "local"\n'))
    for wrong in (
        '[executor]\nuses = "far"\nnodes = 0\n',
        '[executor]\nuses = "far"\nnode = 1\n',
        '[executor]\nuses = "bare"\nnodes = 1\n',
        "[executor]\nnodes = 1\n",
        '[executor]\nuses = "near"\n',
    ):
        assert not check(manifest(wrong)), wrong


def test_a_plugin_lists_its_executors(far: Project) -> None:
    listed = json.loads(far.invoke("plugins", "list", "--json").stdout)["plugins"]
    (own,) = [plugin["executors"] for plugin in listed if plugin["name"] == "far"]
    assert own == [{"name": "far", "summary": "far away"}, {"name": "bare", "summary": ""}]
    assert "far away" in far.invoke("plugins", "list").stdout


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ("Executor('local', connect='odd:c')", "its name is of a-z 0-9 _ -, and not 'local'"),
        ("Executor('../x', connect='odd:c')", "its name is of a-z 0-9 _ -"),
        ("Executor('odd', connect=print)", "executor 'odd': connect is"),
        ("'odd'", "which is not a Executor"),
    ],
)
def test_a_wrong_declaration_sets_the_plugin_aside(toy: Project, declared: str, words: str) -> None:
    source = f"from runner.api import Executor, hookimpl\nRUNNER_API = 1\n@hookimpl\ndef runner_executors():\n    return [{declared}]\n"
    toy.plugin("odd", source)
    assert words in toy.invoke("plugins", "list").stderr


def test_of_two_that_have_one_name_none_is_used(far: Project) -> None:
    far.plugin("away", PLUGIN)
    code, reported = refused(far, "", "--executor", "far")
    assert code == 4
    assert "both offer executor 'far'; uninstall one" in reported
