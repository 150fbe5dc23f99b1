"""The README says what is: settings, exit codes and manifests that it shows are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

from runner.errors import EXIT_MEANINGS
from runner.manifest import schema
from runner.manifest.load import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def manifest_shown() -> str:
    return re.search(r"```toml\n(version = 1.*?)```", README, re.DOTALL)[1]  # type: ignore[index]


def test_the_manifest_shown_is_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(manifest_shown())
    assert load(path).table.name == "flux-8gb"


@pytest.mark.parametrize(
    "table", [schema.ModelSource, schema.Budget, schema.StageTable, schema.Batch, schema.RunTable]
)
def test_every_setting_is_in_the_readme(table: type[schema.Table]) -> None:
    for name, field in table.model_fields.items():
        assert re.search(rf"\b{field.alias or name}\b", README), name


def test_every_exit_code_is_in_the_readme() -> None:
    for code, meaning in EXIT_MEANINGS.items():
        assert f"| {int(code)} | {meaning} |" in README


@pytest.mark.parametrize("path", sorted((ROOT / "manifests").glob("*.toml")), ids=lambda p: p.name)
def test_every_manifest_is_valid_and_says_what_it_is_for(path: Path) -> None:
    load(path)
    head = path.read_text().split("\n\n")[0]
    for word in ("Purpose:", "Hardware:", "Command:", "Override:"):
        assert word in head
    command = re.search(r"Override:\s+runner run (.*)", head)[1]  # type: ignore[index]
    settings = re.findall(r"--set (\S+)", command)
    load(path, settings)
    assert tomli.loads(path.read_text())["version"] == 1
