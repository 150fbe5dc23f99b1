"""Plugins with faults in loading, parameters and imports: what is reported, while the command survives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Outcome, Project

HEAD = """
from pydantic import BaseModel, ConfigDict, Field, field_validator
from runner.api import Stage, Tensor, Text, hookimpl
RUNNER_API = 1
"""
STRICT = 'model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)'
COUNT = 'count: int = Field({}, description="of something")'
GROWS = """
    text: str = Field(description="of any kind")
    @field_validator("text")
    def emphasise(cls, text): return text + "!"
"""
PARAMS = {
    "loose": ("ignores unknown keys", COUNT.format(1)),
    "bare": ("no description: count", f"{STRICT}; count: int = 1"),
    "stuck": (
        "cannot be pickled",
        f"{STRICT}; {COUNT.format(1)}\n    def __reduce__(self): raise TypeError('no')",
    ),
    "wrong": ("its own defaults are refused: count", f"{STRICT}; {COUNT.format('0, ge=1')}"),
    "growing": ("change when they are validated again", f"{STRICT}; {COUNT.format(1)}\n{GROWS}"),
    "strange": ("has no JSON schema", f"{STRICT}; odd: object.__class__ = Field(type, description='a type')"),
    "no_model": ("is not a pydantic model", None),
    "nowhere": ("cannot import 'odd:Nothing'", None),
}


def test_faults_of_parameter_models(project: Project, check: Callable[..., Any]) -> None:
    models = [f"class {name}(BaseModel):\n    {body}" for name, (_, body) in PARAMS.items() if body]
    named = {name: name if body else "Nothing" for name, (_, body) in PARAMS.items()} | {"no_model": "dict"}
    stages = [
        f'Stage(name="odd.{name}", outputs=(Text("t"),), start="odd:start", params="odd:{model}")'
        for name, model in named.items()
    ]
    hook = f"@hookimpl\ndef runner_stages(): return [{', '.join(stages)}]"
    project.plugin("odd", "\n".join([HEAD, "dict = dict", *models, hook]))

    outcome, found = check("odd")

    assert outcome.code == 4
    for name, (words, _) in PARAMS.items():
        verdict = found[f"odd.{name}"]["params"]
        assert words in verdict["message"], verdict
        assert verdict["status"] == ("warn" if name == "bare" else "broken")
        assert "cannot import 'odd:start'" in found[f"odd.{name}"]["runs"]["message"]


def test_a_heavy_import_is_reported_with_its_line(project: Project, check: Callable[..., Any]) -> None:
    project.plugin("odd", HEAD + "import json, slim")
    project.write("packages/slim.py", "import numpy\n")
    outcome, found = check("odd")
    verdict = found["odd"]["imports"]
    assert outcome.code == 4
    assert verdict["status"] == "broken"
    # its own line, though another module does it
    assert (
        verdict["message"] == verdict["told"] == f"numpy is imported by {project.packages / 'odd.py'}, line 4"
    )


def test_a_heavy_import_of_the_formulas_module(project: Project, check: Callable[..., Any]) -> None:
    stage = 'Stage(name="odd.stage", outputs=(Text("t"),), start="odd:start", memory="slim:memory")'
    project.plugin("odd", HEAD + f"@hookimpl\ndef runner_stages(): return [{stage}]")
    project.write("packages/slim.py", "import numpy\ndef memory(params, sizes): return 0\n")
    _, found = check("odd")
    assert "numpy is imported by" in found["odd"]["imports"]["message"]
    assert (
        found["odd"]["imports"]["told"] == found["odd"]["imports"]["message"]
    )  # its name in earlier versions
    assert found["odd.stage"]["formula"]["status"] == "ok"


def test_plugins_that_hang_or_exit_are_reported_and_the_others_are_checked(
    project: Project, check: Callable[..., Any]
) -> None:
    project.plugin("hanging", "import time\nprint('waiting', flush=True)\nwhile True: time.sleep(1)")
    project.plugin("dying", "import os\nos._exit(7)")
    project.plugin("misspelt", HEAD + "@hookimpl\ndef runner_stage(): return []")
    project.plugin("fine", HEAD + "@hookimpl\ndef runner_run_finished(): pass")

    outcome, found = check("hanging", "dying", "misspelt", "fine", "--timeout", "3")

    assert outcome.code == 4
    hanging = found["hanging"]["loads"]
    assert (hanging["status"], hanging["message"]) == (
        "broken",
        "not finished after 3 s: hanging.py, line 3 in <module>",
    )
    assert "more time (--timeout" in hanging["advice"]
    assert 'hanging.py", line 3 in <module>' in hanging["log"]
    assert found["dying"]["loads"]["message"] == "its process exited: 7"
    assert "did you mean runner_stages?" in found["misspelt"]["loads"]["message"]
    assert {check: verdict["status"] for check, verdict in found["fine"].items()} == {
        "loads": "ok",
        "imports": "ok",
        "hooks": "ok",
    }


def test_a_stage_that_hangs(project: Project, check: Callable[..., Any]) -> None:
    stage = 'Stage(name="stuck.stage", outputs=(Text("t"),), start="stuck_stage:start")'
    project.plugin("stuck", HEAD + f"@hookimpl\ndef runner_stages(): return [{stage}]")
    project.write("packages/stuck_stage.py", "import threading\nthreading.Event().wait()\n")

    outcome, found = check("stuck", "--timeout", "3")

    assert outcome.code == 4
    runs = found["stuck.stage"]["runs"]
    assert (runs["status"], runs["message"]) == (
        "broken",
        "not finished after 3 s: stuck_stage.py, line 2 in <module>",
    )
    assert 'stuck_stage.py", line 2 in <module>' in runs["log"]


def test_a_hook_of_a_later_runner(project: Project, check: Callable[..., Any]) -> None:
    project.plugin("odd", HEAD + "@hookimpl(optionalhook=True)\ndef runner_run_paused(): pass")
    outcome, found = check("odd")
    assert outcome.code == 0, outcome
    assert found["odd"]["hooks"]["status"] == "warn"
    assert "never calls runner_run_paused" in found["odd"]["hooks"]["message"]


def test_a_stage_needs_a_formula_where_tensors_pass(project: Project, check: Callable[..., Any]) -> None:
    stage = 'Stage(name="odd.tensors", outputs=(Tensor("x"),), start="odd:start")'
    project.plugin("odd", HEAD + f"@hookimpl\ndef runner_stages(): return [{stage}]")
    _, found = check("odd")
    assert found["odd.tensors"]["formula"]["status"] == "warn"


def test_the_table_on_the_terminal(project: Project) -> None:
    project.plugin("misspelt", HEAD + "@hookimpl\ndef runner_stage(): return []")
    outcome = project.runner("plugins", "check", "misspelt")
    assert outcome.code == 4
    assert "broken   loads        there is no hook runner_stage" in outcome.stdout
    assert "> until this is fixed" in outcome.stdout
    assert outcome.stdout.endswith("1 broken\n")
    assert "loading misspelt ..." in outcome.stderr


def test_a_plugin_that_is_not_there(project: Project) -> None:
    project.plugin("blurring", HEAD)
    outcome: Outcome = project.runner("plugins", "check", "bluring", "--json")
    assert outcome.code == 4
    assert "did you mean 'blurring'?" in outcome.stderr
    assert json.loads(project.runner("plugins", "check", "blurring", "--json").stdout)["ok"] is True
