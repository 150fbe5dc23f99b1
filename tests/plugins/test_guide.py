"""Runs the guide for plugins: its files are written, its commands executed, and all its blocks are known."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from environment import Environment
from PIL import Image
from runner_flux.params import Encode

from runner.api import Facts, Measure, ModelFacts, Recommended
from runner.files import handoff
from runner.plugin_check import checks

if TYPE_CHECKING:
    from project import Project

GUIDE = (Path(__file__).parents[2] / "plugins/README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
FILES = {block.partition("\n")[0].removeprefix("# "): block for kind, block in BLOCKS if kind != "sh"}
TEN_MINUTES, WEIGHTS, CHECK, WHEEL = (block for kind, block in BLOCKS if kind == "sh")
PLUGINS = ("words", "enlarge", "notify", "sketch", "convert", "layers")


@pytest.fixture
def guided(project: Project) -> Project:
    """A project with the guide's plugins installed and its other files written."""
    for name in PLUGINS:
        project.plugin(name, FILES[f"{name}.py"])
    for name in FILES.keys() - {f"{plugin}.py" for plugin in PLUGINS}:
        project.write(f"packages/{name}" if name == "sketch_net.py" else name, FILES[name])
    return project


def test_its_files_are_known() -> None:
    plugins = {"words.py", "enlarge.py", "notify.py", "sketch.py", "limits.py", "convert.py", "layers.py"}
    plugins |= {"measured.py", "away.py"}
    weights = {"sketch_net.py", "make_model.py", "sketch.toml", "test_sketch.py"}
    assert {*FILES} == plugins | weights | {
        *("night.toml", "convert.toml", "layers.toml", "test_stages.py", "recommend.py")
    }


def test_its_executor_is_short() -> None:
    """``tests/runner/remote`` runs it."""
    assert len(FILES["away.py"].splitlines()) <= 80


def test_a_check_refuses_models_and_parameters() -> None:
    module: dict[str, Any] = {}
    exec(FILES["limits.py"], module)
    facts = Facts(
        {"transformer": {"in_channels": 384}}, {"prompt_embeds": Encode(prompt="a", negative_prompt="b")}
    )
    found = list(module["check"](SimpleNamespace(scale=1.0), facts))
    assert [(problem.component, problem.parameter) for problem in found] == [
        ("transformer", ""),
        ("", "negative_prompt"),
    ]


def test_activations_are_measured() -> None:
    module: dict[str, Any] = {}
    exec(FILES["measured.py"], module)
    params = SimpleNamespace(side=8, layers=2)
    assert module["memory"](params, None) == Measure("measured:measure", [8, 2])
    assert module["measure"](params, None).peak == 3 * 8 * 8 * 4  # what a layer takes, makes, and its ReLU


def test_settings_are_read_from_a_models_files() -> None:
    module: dict[str, Any] = {}
    exec(FILES["recommend.py"], module)
    facts = ModelFacts({"vae": {"sample_size": 64}}, {"widget": [{"text": "a circle"}]})
    assert module["recommend"](facts) == Recommended({"diffuse": {"height": 64, "width": 64}}, ("a circle",))
    assert module["recommend"](ModelFacts({}, {})) == Recommended()


def test_a_plugin_in_ten_minutes(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")

    outcome = environment.shell(TEN_MINUTES, tmp_path)

    assert outcome.code == 0, outcome
    assert "13 passed" in outcome.stdout, outcome
    assert "broken" not in outcome.stdout
    assert "0.1.0" in environment.shell("pip show runner-blur", tmp_path).stdout
    pictures = sorted(path.name[:4] for path in (tmp_path / "blur/runs/blur/outputs").iterdir())
    assert pictures == ["dawn", "dusk"]


def test_a_wheel_in_an_environment_that_never_saw_the_source(tmp_path: Path) -> None:
    author, user = (Environment(tmp_path / name) for name in ("author", "user"))
    built = author.shell(f"runner plugins new blur\ncd blur\n{WHEEL}", tmp_path)
    assert built.code == 0, built
    (tmp_path / "elsewhere").mkdir()

    used = user.shell(
        f"pip install --no-deps {tmp_path}/blur/dist/*.whl\n"
        f"runner run {tmp_path}/blur/example.toml --set stage.paint.with.width=40\n"
        "python -c 'import runner_blur; print(runner_blur.__file__)'",
        tmp_path / "elsewhere",
    )

    assert used.code == 0, used
    assert str(tmp_path / "user") in used.stdout
    (dawn,) = (tmp_path / "elsewhere/runs/blur/outputs").glob("dawn-*.png")
    with Image.open(dawn) as picture:
        assert picture.size == (40, 128)


def test_text_and_file_stages_and_a_hook_in_one_run(guided: Project) -> None:
    sender = guided.write("bin/notify-send", '#!/bin/sh\necho "$@" >"$SENT"\n')
    sender.chmod(0o755)
    guided.environment["SENT"] = str(guided.folder / "sent")
    guided.environment["PATH"] = f"{sender.parent}:{guided.environment['PATH']}"

    outcome = guided.runner("run", "night.toml")

    assert outcome.code == 0, outcome
    outputs = {Path(name).suffix: name for name in guided.outputs("night") if not name.endswith(".json")}
    folder = guided.folder / "runs/night/outputs"
    assert (folder / outputs[".txt"]).read_text() == "a picture of 128 x 128, rather red"
    with Image.open(folder / outputs[".png"]) as picture:
        assert picture.size == (512, 512)
    (rewritten,) = (guided.folder / "runs/night/handoff/rewrite").iterdir()
    assert handoff.read(rewritten).text == {"prompt": "a red circle on a white background"}
    assert (guided.folder / "sent").read_text() == "night 2 files, exit code 0\n"


def test_a_stage_for_models_of_many_kinds(guided: Project) -> None:
    environment = {**guided.environment, "PYTHONPATH": str(guided.packages)}
    subprocess.run([sys.executable, "make_model.py"], cwd=guided.folder, env=environment, check=True)
    index = {"_class_name": "Sketch", "net": ["sketch_net", "Net"], "_runs": ["os", "system"]}
    guided.write("sketch-model/model_index.json", json.dumps(index))
    outcome = guided.runner("run", "layers.toml")
    assert outcome.code == 0, outcome
    (table,) = (guided.folder / "runs/layers/outputs").glob("*.txt")
    first, *rows = table.read_text().splitlines()
    weights = [row for row in rows if row.split()[0].endswith("weight")]
    assert (first, len(weights) >= 4) == ("Sketch", True), table.read_text()
    wrong = guided.invoke("validate", "layers.toml", "--set", "stage.measure.with.component=palette")
    assert (wrong.code, "must be 'net'" in wrong.stderr) == (3, True), wrong
    guided.write("sketch-model/model_index.json", json.dumps({**index, "net": ["os", "system"]}))
    refused = guided.invoke("validate", "layers.toml")
    assert (refused.code, "no component of a class known here (Net)" in refused.stderr) == (8, True), refused


def test_its_plugins_pass_the_checks(guided: Project, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.variables["PYTHONPATH"] = str(guided.packages)

    outcome = environment.shell(f"{CHECK}\npytest -q test_stages.py", tmp_path)

    assert outcome.code == 0, outcome
    assert "\n\n23 ok\n" in outcome.stdout, outcome  # and nothing else
    assert "24 passed" in outcome.stdout, outcome


def test_a_stage_with_weights(guided: Project, tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    environment.variables["PYTHONPATH"] = str(guided.packages)

    outcome = environment.shell(WEIGHTS.replace("pytest", "pytest -q"), tmp_path)

    assert outcome.code == 0, outcome
    assert "\n\n14 ok\n" in outcome.stdout, outcome
    assert "12 passed" in outcome.stdout, outcome
    logs = "".join(path.read_text() for path in (tmp_path / "runs/sketch/logs").iterdir())
    assert "the plan is off" not in logs
    for name in guided.outputs("sketch"):
        with Image.open(tmp_path / "runs/sketch/outputs" / name) as picture:
            assert picture.size == {"dawn": (64, 64), "dusk": (48, 48)}[name[:4]]
            assert len(picture.getcolors(64 * 64) or ()) > 1000


def test_its_table_of_checks_is_that_of_the_code() -> None:
    for name, meaning in (checks.PLUGIN_CHECKS | checks.STAGE_CHECKS | checks.RUN_CHECKS).items():
        assert f"| `{name}` | {meaning} |" in GUIDE


CONTRACT = """
from pathlib import Path
from runner.testing import StageContract


class TestConvert(StageContract):
    stage = "convert.picture"
    params = {"picture": Path("fox.png")}
    other = {"picture": Path("owl.png"), "format": "png"}
"""


def test_files_of_the_user_are_converted_to_the_formats_that_items_name(guided: Project) -> None:
    for name, side in (("fox", 8), ("owl", 12)):
        Image.new("RGB", (side, side), "red").save(guided.folder / f"{name}.png")
    outcome = guided.runner("run", "convert.toml")
    assert outcome.code == 0, outcome
    made = [path for path in (guided.folder / "runs/convert/outputs").iterdir() if path.suffix != ".json"]
    assert sorted(path.suffix for path in made) == [".jpeg", ".webp"]
    for path in made:
        with Image.open(path) as opened:
            assert (opened.format, opened.size[0]) == (
                ("JPEG", 8) if path.name.startswith("fox") else ("WEBP", 12)
            )
    checked = guided.runner("plugins", "check", "convert", "--manifest", "convert.toml")
    assert checked.code == 0, checked
    guided.write("test_convert.py", CONTRACT)
    command = [sys.executable, "-m", "pytest", "-q", "test_convert.py"]
    tested = subprocess.run(
        command, cwd=guided.folder, env=guided.environment, capture_output=True, text=True, check=False
    )
    assert tested.returncode == 0, tested.stdout
