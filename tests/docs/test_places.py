"""The table that says where things are: every module and folder in it is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = re.findall(r"^\| (.+\?) \| (.+) \|$", (ROOT / "docs/how-it-works.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("question", "places"), TABLE)
def test_modules_are_where_the_table_says(question: str, places: str) -> None:
    folder, missing = ROOT / "runner", []
    for name in re.findall(r"`([\w/]+(?:/|\.py))`", places):
        path = next((one for one in (folder / name, ROOT / "runner" / name) if one.exists()), None)
        if path is None:
            missing.append(name)
        elif path.is_dir():
            folder = path
    assert not missing, question


def test_there_is_a_table() -> None:
    assert len(TABLE) > 30
