"""A run whose models do not fit its stages: refused before the first stage starts, not after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from checkpoints import make_flux
from faults import config, demo
from hub import Hub, Repository

if TYPE_CHECKING:
    from project import Project

MANIFEST = """
version = 1
name = "checked"
[model]
source = "{source}"
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a"
"""
ADDING = """
from pydantic import BaseModel, ConfigDict, Field
from runner.api import Facts, Problem, Stage, Text, hookimpl

RUNNER_API = 1


class Add(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = 0
    b: int = 0


@hookimpl
def runner_stages():
    said = (Text("said"),)
    return [Stage("adding.add", "adding:start", params="adding:Add", outputs=said, check="adding:check")]


def check(params, facts):
    assert isinstance(facts, Facts)
    if params.a + params.b > 9:
        yield Problem("a and b are more than 9 together", parameter="b")
    if params.a > 5:
        yield Problem("a is rather large", parameter="a", warning=True)
    if params.a < 0:
        raise ZeroDivisionError("oh")


def start(ctx):
    return lambda item: {"said": str(item.params.a + item.params.b)}
"""
ADD = """
version = 1
name = "adding"
[budget]
device = "cpu"
[[stage]]
name = "add"
uses = "adding.add"
[stage.with]
a = {a}
[[item]]
id = "one"
b = 4
"""


def test_a_later_stages_model_is_refused_before_the_first_stage_starts(project: Project) -> None:
    demo(project.folder / "model", config("vae/config.json", layers_per_block=2))
    project.write("m.toml", MANIFEST.format(source="./model"))
    outcome = project.runner("run", "m.toml", "--json")
    assert outcome.code == 8, outcome
    assert outcome.of("stage_started") == []
    (end,) = outcome.of("run_finished")
    assert end["exit_code"] == 8
    assert "m.toml:4:10: component 'vae': the files in" in end["error"]
    assert "weights of AutoencoderKL (" in end["error"]


def test_a_model_on_the_hub_is_refused_before_it_is_fetched(project: Project) -> None:
    folder = make_flux(project.folder / "flux")
    config("transformer/config.json", num_layers=1)(folder)
    project.write("m.toml", MANIFEST.format(source="owner/model"))
    with Hub({"owner/model": Repository.of(folder)}).served() as hub:
        project.environment["HF_ENDPOINT"] = hub.url
        outcome = project.runner("plan", "m.toml")
        assert outcome.code == 8, outcome
        assert "the files in owner/model/transformer hold" in outcome.stderr
        assert "FluxTransformer2DModel does not take (transformer_blocks.1." in outcome.stderr
        assert not any("spiece" in name for name, _ in hub.downloads)


def test_a_stage_checks_its_parameters_itself(project: Project) -> None:
    project.plugin("adding", ADDING)
    project.write("m.toml", ADD.format(a=6))
    for command in ("validate", "plan", "run"):
        outcome = project.invoke(command, "m.toml")
        assert outcome.code == 3, outcome
        assert "m.toml:12:5: a and b are more than 9 together" in outcome.stderr
    assert not (project.folder / "runs").exists()

    project.write("m.toml", ADD.format(a=-1))
    outcome = project.invoke("validate", "m.toml")
    assert outcome.code == 4
    assert (
        "the check adding:check of adding.add fails for item 'one': ZeroDivisionError: oh" in outcome.stderr
    )


def test_what_a_stage_warns_of_is_an_event(project: Project) -> None:
    project.plugin("adding", ADDING)
    project.write("m.toml", ADD.format(a=6).replace("b = 4", "b = 1"))
    outcome = project.runner("run", "m.toml", "--json")
    assert outcome.code == 0, outcome
    (warning,) = outcome.of("warning")
    assert (warning["kind"], warning["stage"]) == ("model", "add")
    assert "m.toml:9:5: a is rather large" in warning["message"]
