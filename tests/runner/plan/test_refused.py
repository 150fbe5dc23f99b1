"""Plans that count what is there, and refuse maps, formulas and folders that cannot be meant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import weighty_plugin
from safetensors.torch import load_file, save_file

from runner.plan.requirements import IMPORTED, is_installed

if TYPE_CHECKING:
    from project import Project


@pytest.fixture
def weighty(project: Project) -> Project:
    weighty_plugin.install(project, width=64, depth=6)
    return project


def plan(project: Project, *sets: str) -> dict[str, Any]:
    words = [word for setting in sets for word in ("--set", setting)]
    outcome = project.invoke("plan", "weighty.toml", "--json", *words)
    assert outcome.code == 0, outcome
    (stage,) = json.loads(outcome.stdout)["stages"][-1:]
    return dict(stage)


def test_a_map_that_names_what_is_not_there(weighty: Project) -> None:
    outcome = weighty.invoke("plan", "weighty.toml", "--set", 'stage.run.device_map={ "layer" = "disk" }')
    assert outcome.code == 3, outcome
    assert "no weight of weighty.run lies under 'layer'; did you mean 'layers'?" in outcome.stderr
    assert plan(weighty, 'stage.run.device_map={ "layers" = "disk" }')["components"][0]["moved"] > 0


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("-7", "it returned peak = -7, which is no size"),
        ("Activations(5, passes=None)", "it returned passes = None, which is no size"),
        ("exit(9)", "SystemExit: 9"),
    ],
)
def test_a_formula_that_tells_no_size_is_the_plugins_fault(
    weighty: Project, formula: str, words: str
) -> None:
    source = weighty_plugin.PLUGIN.replace("return params.takes * MIB", f"return {formula} #")
    weighty.plugin("weighty", source.replace("import Component", "import Activations, Component"))
    outcome = weighty.runner("plan", "weighty.toml")
    assert outcome.code == 4, outcome
    assert words in outcome.stderr


def test_what_the_fork_server_has_imported_for_other_stages_counts(weighty: Project) -> None:
    alone = plan(weighty)["predicted"]["ram"]
    text = weighty_plugin.MANIFEST.replace(
        "[[stage]]",
        '[[stage]]\nname = "encode"\nuses = "flux.encode"\n[stage.model]\nsource = "plugin:flux/demo"\n[[stage]]',
        1,
    )
    weighty.write("weighty.toml", text)
    assert plan(weighty)["predicted"]["ram"] - alone == (125 << 20) + sum(
        size for name, size in IMPORTED.items() if is_installed(name)
    )


def test_a_map_whose_name_may_be_several_things(weighty: Project) -> None:
    outcome = weighty.invoke("plan", "weighty.toml", "--set", 'stage.run.device_map={ "bias" = "disk" }')
    assert outcome.code == 3, outcome
    assert "'bias' may be 'first.bias' or 'layers.0.bias' or one of 5 more: write the whole" in outcome.stderr


def test_weights_of_other_shapes_are_a_broken_model(weighty: Project) -> None:
    weighty.write("model/net/config.json", '{"width": 32, "depth": 6}')
    outcome = weighty.runner("run", "weighty.toml")
    assert outcome.code == 8, outcome
    assert "hold 14 weights of another shape (first.bias (64 in the files, 32 in the class)" in outcome.stderr


def test_a_stage_that_cannot_be_sent_to_a_worker_is_reported_at_once(weighty: Project) -> None:
    source = weighty_plugin.PLUGIN.replace(
        'Component("net", "weighty_net:Net")',
        'Component("net", "weighty_net:Net", files=(Unsent("*.txt"),))',
    )
    unsent = (
        "class Unsent(str):\n    def __reduce_ex__(self, protocol): raise TypeError('not me')\n\n\n@hookimpl"
    )
    weighty.plugin("weighty", source.replace("@hookimpl", unsent, 1))
    outcome = weighty.runner("run", "weighty.toml", seconds=100)
    assert outcome.code == 4, outcome
    assert "the stage cannot be pickled to be sent to its worker: TypeError" in outcome.stderr


def test_lists_of_blocks_are_found_under_names_with_digits(weighty: Project) -> None:
    net = weighty_plugin.NET.replace(
        "self.layers = ", "self.stage1 = torch.nn.Module()\n        self.stage1.layers = "
    )
    weighty.write("packages/weighty_net.py", net.replace("in self.layers", "in self.stage1.layers"))
    file = weighty.folder / "model/net/model.safetensors"
    save_file({name.replace("layers.", "stage1.layers."): w for name, w in load_file(file).items()}, file)
    assert plan(weighty)["components"][0]["blocks"] == 6
