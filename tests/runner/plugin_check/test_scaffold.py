"""``runner plugins new``: names, files, and what it refuses. That what it writes works is in test_guide."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

if TYPE_CHECKING:
    from project import Project

ROOT = Path(__file__).parents[3]
FILES = {
    ".gitignore",
    "README.md",
    "example.toml",
    "pyproject.toml",
    "runner_my_blur/__init__.py",
    "runner_my_blur/memory.py",
    "runner_my_blur/paint.py",
    "runner_my_blur/params.py",
    "tests/test_paint.py",
}


@pytest.mark.parametrize("name", ["my-blur", "My_Blur", "runner-my-blur", "runner_my.blur", " my blur "])
def test_one_plugin_however_its_name_is_written(project: Project, name: str) -> None:
    outcome = project.invoke("plugins", "new", name, "--json")
    assert outcome.code == 0, outcome
    written = json.loads(outcome.stdout)
    assert (written["name"], written["package"], written["distribution"]) == (
        "my_blur",
        "runner_my_blur",
        "runner-my-blur",
    )
    assert written["folder"] == "my-blur"
    assert project.files() == {f"my-blur/{path}" for path in FILES} == set(written["files"])


def test_every_file_has_the_names_in_it(project: Project) -> None:
    outcome = project.invoke("plugins", "new", "my-blur", "--output", "somewhere/else")
    assert outcome.code == 0
    assert "cd somewhere/else" in outcome.stderr
    folder = project.folder / "somewhere/else"
    texts = {path: (folder / path).read_text() for path in FILES}
    assert not any("$" in text for text in texts.values())
    for path, text in texts.items():
        if path.endswith(".py"):
            ast.parse(text)
            assert max(map(len, text.splitlines())) <= 88  # whatever linter its author has
    built = tomli.loads(texts["pyproject.toml"])["project"]
    assert built["entry-points"]["runner"] == {"my_blur": "runner_my_blur"}
    assert tomli.loads(texts["example.toml"])["stage"][0]["uses"] == "my_blur.paint"


def test_nothing_is_overwritten(project: Project) -> None:
    (project.folder / "empty").mkdir()
    assert project.invoke("plugins", "new", "blur", "-o", "empty").code == 0
    before = project.files()
    for place in ("empty", "empty/README.md"):
        outcome = project.invoke("plugins", "new", "blur", "-o", place)
        assert outcome.code == 2
        assert f"{place} exists already" in outcome.stderr
    assert project.files() == before


@pytest.mark.parametrize("name", ["", "3d", "a/b", "../up", "blür", "-", "runner"])
def test_names_that_cannot_be(project: Project, name: str) -> None:
    outcome = project.invoke("plugins", "new", "--", name)
    assert outcome.code == 2, outcome
    assert "cannot be a plugin's name" in outcome.stderr
    assert project.files() == set()


def test_a_name_that_is_taken(project: Project) -> None:
    outcome = project.invoke("plugins", "new", "flux")
    assert outcome.code == 2
    assert "a plugin 'flux' is installed already, from runner-flux" in outcome.stderr


def test_the_wheel_has_the_templates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    templates = {
        str(path.relative_to(ROOT)) for path in (ROOT / "runner/plugin_check/template").rglob("*.in")
    }
    assert len(templates) == len(FILES)
    assert templates <= set(zipfile.ZipFile(wheel).namelist())
