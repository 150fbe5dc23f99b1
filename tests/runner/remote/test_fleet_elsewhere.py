"""Nodes that are not like the machine of the run: other folders, other models' paths, fewer cores, less memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import runner_flux
from chaos.batch import MANIFEST, items
from checkpoints import make_flux
from hub import Hub, Repository
from nodes import ODD, SENT, away, digests, nodes_of, prompts
from PIL import Image
from plugins.test_guide import FILES
from short_flux import short_flux
from toy_plugin import STAGES
from waiting import wait_until

if TYPE_CHECKING:
    from project import Outcome, Project


TWO = '[batch]\nprompts = ["a red circle", "a blue square"]\n'


def on_nodes(project: Project, manifest: str, *command: str, nodes: int = 2) -> Outcome:
    """Run a manifest on nodes whose agents a command starts."""
    project.plugin("away", ODD)
    (project.folder / "flags").mkdir(exist_ok=True)
    project.environment |= {**SENT, "TOY_FLAGS": str(project.folder / "flags")}
    sets = [f"executor.nodes={nodes}", f"executor.command={json.dumps(command)}"]
    options = [word for one in sets for word in ("--set", one)]
    return project.runner("run", manifest, "--json", "--executor", "away", *options)


def here(project: Project, manifest: str, run: str, *options: str) -> dict[str, str]:
    """What a run on this machine leaves; it is moved away."""
    outcome = project.runner("run", manifest, *options)
    assert outcome.code == 0, outcome
    found = digests(project.folder / "runs" / run)
    (project.folder / "runs").rename(project.folder / "here")
    return found


def test_a_run_without_the_model_takes_it_that_the_nodes_have(project: Project) -> None:
    """It is on the hub: nodes fetch it, once for their machine, and this machine fetches nothing."""
    repository = Repository.of(make_flux(project.folder / "model"))
    with Hub({"some-lab/tiny-flux": repository}).served() as hub:
        project.environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        project.write("hub.toml", short_flux("hub", "some-lab/tiny-flux", items=TWO))
        before = here(project, "hub.toml", "hub")
        shutil.rmtree(project.folder / "hub")
        hub.downloads.clear()
        outcome = on_nodes(project, "hub.toml", "env", f"HF_HOME={project.folder / 'theirs'}")
        assert outcome.code == 0, outcome
        fetched = [path for path, _ in hub.downloads]
    assert digests(project.folder / "runs/hub") == before
    assert nodes_of(outcome) == {"node-0", "node-1"}
    assert fetched
    assert sorted(fetched) == sorted({*fetched})
    assert not list((project.folder / "hub").rglob("*.safetensors"))


def with_model(project: Project) -> None:
    """A manifest whose model is a folder beside it, and which says nothing of threads."""
    demo = Path(runner_flux.__file__).parent / "demo"
    for folder in ("model", "theirs/model"):
        shutil.copytree(demo, project.folder / folder)
    text = MANIFEST.replace('"plugin:flux/demo"', '"./model"').replace("threads = 1\n", "")
    assert text.count("./model") == 1
    project.write("demo.toml", text)
    project.write("items.jsonl", "".join(f"{json.dumps(item)}\n" for item in items()[:4]))


def test_a_model_at_another_path_and_fewer_cores_give_the_same_bytes(project: Project) -> None:
    """The number of threads, which may change bits, and the model's record are those of this machine."""
    with_model(project)
    before = here(project, "demo.toml", "demo")
    taskset = shutil.which("taskset")
    one_core = (taskset, "-c", "0") if taskset else ()
    theirs = f"RUNNER_AGENT_FOLDER={project.folder / 'theirs'}"
    outcome = on_nodes(project, "demo.toml", *one_core, "env", theirs)
    assert outcome.code == 0, outcome
    assert digests(project.folder / "runs/demo") == before


def test_another_model_at_the_other_path_is_refused(project: Project) -> None:
    with_model(project)
    weights = next((project.folder / "theirs/model/vae").glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    theirs = f"RUNNER_AGENT_FOLDER={project.folder / 'theirs'}"
    outcome = on_nodes(project, "demo.toml", "env", theirs, nodes=1)
    assert outcome.code == 8, outcome
    assert "its model's files differ, for decode" in outcome.stderr


@pytest.mark.parametrize(
    ("how", "environment", "sent"),
    [("count", {}, False), ("count", SENT, True), ("answer", {}, True)],
    ids=["shared", "sent", "another folder"],
)
def test_files_are_sent_unless_both_see_the_folder(
    toy: Project, how: str, environment: dict[str, str], sent: bool
) -> None:
    """A node that sees a folder of the same path, which is not the run's, answers with another word."""
    away(toy, 1, prompts(2))
    toy.environment |= {**environment, "ODD": how}
    outcome = toy.runner("run", "away.toml", "--json")
    assert outcome.code == 0, outcome
    assert (toy.folder / "flags/sent").exists() == sent
    assert len(toy.outputs("toy")) == 4


def test_what_is_not_needed_any_more_is_kept_neither_here_nor_there(toy: Project) -> None:
    away(toy, 2, prompts(6), sets='[run]\nkeep_handoffs = "needed"\n')
    before = here(toy, "toy.toml", "toy")
    toy.environment |= SENT
    outcome = toy.runner("run", "away.toml", "--json")
    assert outcome.code == 0, outcome
    assert digests(toy.folder / "runs/toy") == before
    assert not list((toy.folder / "runs/toy/handoff").rglob("*.safetensors"))


LINKS = """
import os, pathlib, time
from pydantic import BaseModel
from runner.api import File, Stage, Text, hookimpl
RUNNER_API = 1

class First(BaseModel):
    prompt: str

@hookimpl
def runner_stages():
    return [
        Stage("links.one", "links:text", params="links:First", outputs=(Text("a"),)),
        Stage("links.two", "links:text", inputs=(Text("a"),), outputs=(Text("b"),)),
        Stage("links.three", "links:file", inputs=(Text("b"),), outputs=(File("page", ".txt"),)),
    ]

def text(ctx):
    return lambda item: {"b": "b"} if "a" in item.inputs else {"a": "a"}

def file(ctx):
    def one(item):
        flag = pathlib.Path(os.environ["TOY_FLAGS"], "begun")
        flag.touch()
        while not flag.with_suffix(".go").exists():
            time.sleep(0.01)
        return {"page": b"page"}
    return one
"""


def test_a_node_keeps_the_handoffs_that_are_still_needed_alone(toy: Project) -> None:
    away(toy, 1, "")
    toy.plugin("links", LINKS)
    stages = "".join(f'[[stage]]\nname = "{n}"\nuses = "links.{n}"\n' for n in ("one", "two", "three"))
    head = 'version = 1\nname = "links"\n[budget]\ndevice = "cpu"\nthreads = 1\n'
    toy.write("links.toml", f'{head}{stages}{prompts(2)}[executor]\nuses = "away"\n')
    (toy.folder / "scratch").mkdir()
    toy.environment |= {**SENT, "TMPDIR": str(toy.folder / "scratch")}
    flag = toy.folder / "flags/begun"
    with toy.start("run", "links.toml") as process:
        wait_until(flag.exists, 100, "the last stage has begun")
        kept = sorted(path.parent.name for path in (toy.folder / "scratch").rglob("*.safetensors"))
        flag.with_suffix(".go").touch()
        assert process.wait(60) == 0
    assert kept == ["two", "two"]
    assert not list((toy.folder / "scratch").glob("runner-agent-*"))


def test_agents_on_one_machine_share_its_memory(toy: Project) -> None:
    """One has too small a share, and is left out; the other goes on."""
    toy.write("toy.toml", STAGES + prompts(2))
    first = f"mkdir {toy.folder}/one 2>&- && export RUNNER_AGENT_SHARE=100000; exec $0 $@"
    outcome = on_nodes(toy, "toy.toml", "sh", "-c", first)
    assert outcome.code == 0, outcome
    (refused,) = outcome.of("node_refused")
    assert refused["code"] == 5
    assert nodes_of(outcome) == {"node-0", "node-1"} - {refused["node"]}


def test_files_that_items_name_are_sent(project: Project) -> None:
    project.plugin("convert", FILES["convert.py"])
    project.write("convert.toml", FILES["convert.toml"])
    for name, side in (("fox", 8), ("owl", 12)):
        Image.new("RGB", (side, side), "red").save(project.folder / f"{name}.png")
    before = here(project, "convert.toml", "convert")
    (project.folder / "theirs").mkdir()
    outcome = on_nodes(project, "convert.toml", "env", "-C", str(project.folder / "theirs"))
    assert outcome.code == 0, outcome
    assert digests(project.folder / "runs/convert") == before


PAPER = """
from pydantic import BaseModel
from runner.api import File, Stage, Text, hookimpl
RUNNER_API = 1

class Draw(BaseModel):
    prompt: str

@hookimpl
def runner_stages():
    sheet = File("sheet", ".txt")
    return [
        Stage("paper.draw", "paper:draw", params="paper:Draw", outputs=(sheet, Text("title"))),
        Stage("paper.copy", "paper:copy", inputs=(sheet,), outputs=(File("page", ".txt"),)),
    ]

def draw(ctx):
    return lambda item: {"sheet": item.params.prompt.encode(), "title": "x"}

def copy(ctx):
    return lambda item: {"page": item.inputs["sheet"].read_bytes() * 2}
"""


def test_files_beside_handoffs_are_sent(toy: Project) -> None:
    toy.plugin("paper", PAPER)
    stages = "".join(f'[[stage]]\nname = "{n}"\nuses = "paper.{n}"\n' for n in ("draw", "copy"))
    head = 'version = 1\nname = "paper"\n[budget]\ndevice = "cpu"\nthreads = 1\n'
    toy.write("paper.toml", head + stages + prompts(3))
    before = here(toy, "paper.toml", "paper")
    # one node draws, and another copies: neither has what the other has made
    first = on_nodes(toy, "paper.toml", nodes=1)
    assert first.code == 0, first
    for page in (toy.folder / "runs/paper/outputs").iterdir():
        page.unlink()
    outcome = on_nodes(toy, "paper.toml", nodes=1)
    assert outcome.code == 0, outcome
    assert {e["stage"] for e in outcome.of("item_finished")} == {"copy"}
    assert digests(toy.folder / "runs/paper") == before


@pytest.mark.parametrize("environment", [{}, SENT], ids=["shared", "sent"])
def test_what_takes_too_long_on_one_node_is_made_by_another_as_well(
    toy: Project, environment: dict[str, str]
) -> None:
    """It ends once, and what the slow one has saved is not kept."""
    away(toy, 2, '[[item]]\nid = "late"\nprompt = "late"\nbehave = "straggle"\n' + prompts(3))
    toy.environment |= environment
    outcome = toy.runner("run", "away.toml", "--json", seconds=50)
    assert outcome.code == 0, outcome
    assert (toy.folder / "flags/straggles").exists()
    assert [e["item"] for e in outcome.of("item_finished") if e["stage"] == "make"].count("late") == 1
    assert outcome.of("node_lost") == []
    assert not list((toy.folder / "runs/toy/state").rglob("*.safetensors"))
