"""Templates of plugins: which one `runner new` starts from, and what is wrong with others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

from runner.errors import PluginError
from runner.manifest.schema import ModelSource
from runner.plugins import discover
from runner.tailor.templates import choose

if TYPE_CHECKING:
    from project import Project


def test_a_model_that_no_template_serves(project: Project) -> None:
    project.write("model/model_index.json", '{"_class_name": "WeatherPipeline"}')
    plugins = discover()
    plugins.loaded = [plugin for plugin in plugins.loaded if plugin.name == "flux"]
    with project.as_environment(), pytest.raises(PluginError) as refused:
        choose(plugins, None, ModelSource(source="./model"), Path())
    message = str(refused.value)
    assert "'./model' is of class WeatherPipeline, and no installed plugin has a template for that" in message
    assert "flux (FluxPipeline, from runner-flux)" in message


def test_a_model_that_only_the_template_for_any_is_offered(project: Project) -> None:
    project.write("model/model_index.json", '{"_class_name": "WeatherPipeline"}')
    made = project.invoke("new", "--vram", "8GiB", "--ram", "30GiB", "--model", "./model")
    assert made.code == 8, made
    words = "the stages of 'diffusers' cannot use this model: the installed diffusers has no pipeline Weather"
    assert made.stderr.count(words) == 1


PLUGIN = """
from pydantic import BaseModel
from runner.api import Stage, Template, Text, hookimpl

RUNNER_API = 1

class Params(BaseModel):
    prompt: str

@hookimpl
def runner_stages():
    return [Stage("{name}.say", "{name}:start", params="{name}:Params", outputs=(Text("said"),))]

@hookimpl
def runner_templates():
    return [{templates}]
"""
TEMPLATE = """
# Purpose:   says it, on {hardware}
# Command:   runner run {manifest}
version = 1
name = "says"
[[stage]]  # the only one
name = "say"
uses = "third.say"
[batch]
prompts = ["{hardware} is no blank here"]
"""


def third(project: Project, *templates: str, name: str = "third") -> Project:
    """Another plugin with templates, in a package of its own."""
    source = PLUGIN.replace("{name}", name).replace("{templates}", ", ".join(templates))
    project.plugin(name, source)
    module = project.packages / f"{name}.py"
    project.write(f"packages/{name}/__init__.py", module.read_text())
    module.unlink()
    sys.modules.pop(name, None)  # another test's
    project.write(f"packages/{name}/new.toml", TEMPLATE)
    return project


def test_a_template_of_another_plugin(project: Project) -> None:
    third(project, 'Template("saying", ("SayPipeline",), "new.toml")')
    project.write("model/model_index.json", '{"_class_name": "SayPipeline"}')
    made = project.invoke("new", "--vram", "1GiB", "--ram", "2GiB", "--model", "./model", "-o", "say.toml")
    assert made.code == 0, made
    text = (project.folder / "say.toml").read_text()
    assert text.startswith(
        "# Purpose:   says it, on a CUDA card with 1 GiB, 2 GiB of RAM.\n# Command:   runner run say.toml\n"
    )
    assert "[[stage]]  # the only one\n# predicted: resident, VRAM" in text
    assert "without activations, which are not known" in text
    assert '"{hardware} is no blank here"' in text
    assert tomli.loads(text)["model"] == {"source": "./model"}
    assert project.invoke("plan", "say.toml").code == 0


def test_a_recommendation_is_written_where_the_template_has_the_parameter(project: Project) -> None:
    third(project, 'Template("saying", ("SayPipeline",), "new.toml", recommend="third:recommend")')
    module = project.packages / "third/__init__.py"
    source = module.read_text().replace("prompt: str", "prompt: str\n    volume: int = 1\n    pitch: int = 1")
    recommended = '{"say": {"volume": 3, "pitch": 5}, "again": {"volume": 3, "pitch": 6}}'
    module.write_text(
        f"{source}\ndef recommend(facts):\n"
        f"    from runner.api import Recommended\n    return Recommended({recommended})\n"
    )
    again = '[[stage]]\nname = "again"\nuses = "third.say"\n[stage.with]\npitch = 4\n[batch]'
    project.write(
        "packages/third/new.toml",
        TEMPLATE.replace("[[stage]]", "[with]\nvolume = 2\n[[stage]]", 1).replace("[batch]", again),
    )
    project.write("model/model_index.json", '{"_class_name": "SayPipeline"}')
    made = project.invoke("new", "--vram", "1GiB", "--ram", "2GiB", "--model", "./model", "-o", "say.toml")
    assert made.code == 0, made
    table = tomli.loads((project.folder / "say.toml").read_text())
    assert table["with"] == {"volume": 3}
    assert [stage["with"] for stage in table["stage"]] == [{"pitch": 5}, {"pitch": 6}]
    assert "with.volume = 3: as the model's own files say" in made.stderr
    assert made.stderr.count("volume") == 1


def test_example_files_that_the_manifest_names_come_along(project: Project) -> None:
    """One that is there already is kept; one that no parameter names is left where it is."""
    files = '("files/a.png", "files/b.png", "files/c.png")'
    third(
        project,
        f'Template("saying", ("SayPipeline",), "new.toml", recommend="third:recommend", files={files})',
    )
    module = project.packages / "third/__init__.py"
    types = "prompt: str\n    first: InputFile | None = None\n    second: list[InputFile] = []"
    source = module.read_text().replace("prompt: str", types).replace("Stage,", "InputFile, Stage,")
    module.write_text(
        f"{source}\ndef recommend(facts):\n    from runner.api import Recommended\n"
        '    return Recommended(shared={"first": "a.png", "second": ["b.png"]})\n'
    )
    for name in "abc":
        project.write(f"packages/third/files/{name}.png", f"the plugin's {name}")
    project.write("made/b.png", "my own")
    project.write("model/model_index.json", '{"_class_name": "SayPipeline"}')
    arguments = ("new", "--vram", "1GiB", "--ram", "2GiB", "--model", "./model", "-o", "made/say.toml")

    made = project.invoke(*arguments)

    assert made.code == 0, made
    assert tomli.loads((project.folder / "made/say.toml").read_text())["with"] == {
        "first": "a.png",
        "second": ["b.png"],
    }
    assert {path.name: path.read_text() for path in (project.folder / "made").glob("*.png")} == {
        "a.png": "the plugin's a",
        "b.png": "my own",
    }
    assert "with.first = a.png: an example: put your own in its place" in made.stderr
    assert made.stderr.count("wrote") == 2  # the file and the manifest

    (project.folder / "made/say.toml").unlink()
    (project.folder / "made/a.png").unlink()
    (project.folder / "made/b.png").write_text("")  # refused: nothing is left behind
    assert project.invoke(*arguments).code == 8
    assert [path.name for path in (project.folder / "made").iterdir()] == ["b.png"]


def test_where_several_templates_could_be_meant_one_is_named(project: Project) -> None:
    templates = [f'Template("{name}", ("SayPipeline",), "new.toml")' for name in ("saying", "shouting")]
    third(project, *templates)
    arguments = ["new", "--vram", "1GiB", "--ram", "2GiB"]
    made = project.invoke(*arguments)
    assert made.code == 2, made
    assert "several templates match, choose with --model or --template: " in made.stderr
    assert project.invoke(*arguments, "--template", "shouting").code == 0
    project.write("model/model_index.json", '{"_class_name": "SayPipeline"}')
    made = project.invoke(*arguments, "--model", "./model")
    assert made.code == 2, made
    assert "choose with --template: saying (SayPipeline, from third-plugin), shouting" in made.stderr
    project.write("model/model_index.json", "[]")
    made = project.invoke(*arguments, "--model", "./model")
    assert made.code == 8, made
    assert "model_index.json of model './model' names no pipeline" in made.stderr


@pytest.mark.parametrize(
    ("templates", "words"),
    [
        (["'new.toml'"], "runner_templates returned 'new.toml', which is not a Template"),
        (
            ['Template("t", "SayPipeline", "new.toml")'],
            "pipelines is 'SayPipeline', not a tuple of str: write ('SayPipeline',)",
        ),
        (['Template("t", (), "../new.toml")'], "path is not inside the plugin's folder: '../new.toml'"),
        (
            ['Template("t", (), "new.toml", files=("../x.png",))'],
            "files is not inside the plugin's folder: '../x.png'",
        ),
        (['Template("t", (), "/new.toml")'], "path is not inside the plugin's folder: '/new.toml'"),
        (['Template("t", (), None)'], "path is not a string: None"),
        (["1 / 0"], "ZeroDivisionError"),
    ],
)
def test_a_plugin_whose_templates_break_the_contract_is_set_aside(
    project: Project, templates: list[str], words: str
) -> None:
    third(project, *templates)
    report = json.loads(project.invoke("plugins", "list", "--json").stdout)
    assert [broken["name"] for broken in report["broken"]] == ["third"]
    assert words in report["broken"][0]["reason"]


def test_a_template_has_no_place_in_a_single_module(project: Project) -> None:
    source = PLUGIN.replace("{name}", "alone").replace("{templates}", 'Template("t", (), "new.toml")')
    project.plugin("alone", source)
    reported = json.loads(project.invoke("plugins", "list", "--json").stdout)
    assert (
        "alone is a single module; a template must be in the folder of a package"
        in reported["broken"][0]["reason"]
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        ("version = ", "new.toml:1:11: "),
        (TEMPLATE.replace("uses", "used"), "unknown key 'used'; did you mean 'uses'?"),
        (TEMPLATE.replace("third.say", "third.sing"), "stage 'third.sing' is offered by no installed plugin"),
    ],
    ids=["absent", "syntax", "key", "stage"],
)
def test_a_template_that_is_broken_is_exit_4_and_the_plugins_stages_still_work(
    project: Project, text: str | None, words: str
) -> None:
    third(project, 'Template("saying", (), "new.toml")')
    template = project.packages / "third/new.toml"
    project.write("run.toml", TEMPLATE)
    template.unlink() if text is None else template.write_text(text)
    made = project.invoke("new", "--vram", "1GiB", "--ram", "2GiB", "--template", "saying")
    assert made.code == 4, made
    assert "the template 'saying' of plugin 'third' (from third-plugin) is broken:" in made.stderr
    assert words in made.stderr
    assert project.invoke("validate", "run.toml").code == 0
