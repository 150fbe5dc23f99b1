"""What code and documents say about files of this project: they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"\b(?:tests|manifests|runner|plugins)/[\w/.-]+\.(?:py|toml|md)\b")


def test_every_file_that_is_named_is_there() -> None:
    sources = [*ROOT.glob("runner/**/*.py"), *ROOT.glob("plugins/**/*.py"), *ROOT.glob("tests/*.py")]
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("plugins/*.md"),
        *ROOT.glob("plugins/*/*.md"),
    ]
    named = {(name, path) for path in (*sources, *pages) for name in NAMED.findall(path.read_text("utf-8"))}
    assert len(named) > 10
    assert not {(name, str(path)) for name, path in named if not (ROOT / name).exists()}


def test_nothing_is_promised_for_windows_and_nothing_is_there_for_it_alone() -> None:
    only = re.compile(r"msvcrt|os\.name|win32|nvcuda|Scripts\\\\")
    found = [path for path in ROOT.glob("runner/**/*.py") if only.search(path.read_text("utf-8"))]
    assert not found
    assert "Windows:" not in (ROOT / "README.md").read_text("utf-8")
