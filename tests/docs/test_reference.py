"""The documents say what is: settings, exit codes, events and manifests that they show are those of the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli
from toy_plugin import BEHAVING

from runner.errors import EXIT_MEANINGS
from runner.events import PUBLISHED
from runner.manifest import schema
from runner.manifest.load import load

if TYPE_CHECKING:
    from project import Project

ROOT = Path(__file__).parents[2]
SHOWN = {
    f"{path.name}-{n}": block
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
    for n, block in enumerate(re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL))
}


def rows(document: str, part: str) -> dict[str, list[str]]:
    """The rows of a generated table by their first cell, which is without its backticks."""
    text = (ROOT / document).read_text()
    (body,) = re.findall(rf"<!-- begin: {part} -->\n(.*?)<!-- end: {part} -->", text, re.DOTALL)
    cells = [[c.strip() for c in line.strip("|\n").split(" |")] for line in body.splitlines()[2:]]
    return {first.strip("`"): rest for first, *rest in cells}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("block", SHOWN)
def test_a_manifest_that_is_shown_is_a_manifest(tmp_path: Path, block: str) -> None:
    path = tmp_path / "shown.toml"
    path.write_text(SHOWN[block])
    assert load(path).table.stage


@pytest.mark.parametrize(
    ("where", "table"),
    [
        ("[model]", schema.ModelSource),
        ("[budget]", schema.Budget),
        ("[[stage]]", schema.StageTable),
        ("[[lora]]", schema.LoraTable),
        ("[batch]", schema.Batch),
        ("[run]", schema.RunTable),
    ],
)
def test_every_setting_has_a_row_with_its_meaning(where: str, table: type[schema.Table]) -> None:
    found = rows("docs/manifest.md", "settings")
    names = {f"{where} {field.alias or name}" for name, field in table.model_fields.items()}
    assert names == {name for name in found if name.startswith(where)}
    assert all(found[name][-1] for name in names)


def test_every_exit_code_has_a_row() -> None:
    assert rows("docs/commands.md", "exit-codes") == {str(int(c)): [m] for c, m in EXIT_MEANINGS.items()}


def test_what_runs_print_is_among_the_events(toy: Project) -> None:
    die = '\n[[item]]\nid = "dying"\nprompt = "y"\nbehave = "die"\n'
    text = f"{BEHAVING.format('raise')}{die}"
    toy.write("toy.toml", text.replace("[[stage]]", "[[stage]]\nretries = 1", 1))
    outcome = toy.runner("run", "toy.toml", "absent.toml", "--json")
    assert {"retrying", "worker_died", "summary", "item_finished"} <= {e["event"] for e in outcome.events}
    known = {kind.event: {field.name for field in dataclasses.fields(kind)} for kind in PUBLISHED}
    for event in outcome.events:
        fields = event.keys() - {"event", "time"}
        assert fields <= {*known[event["event"]]}, event


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
