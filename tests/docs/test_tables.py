"""The generated parts of the documents are those that the code gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tables(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs/tables.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_they_are_up_to_date() -> None:
    reported = tables("--check", "docs/manifest.md", "docs/commands.md", "plugins/flux/README.md")
    assert reported.returncode == 0, reported.stderr


def test_a_stale_one_is_reported_and_written_anew(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- begin: exit-codes -->\n| 0 | fine |\n<!-- end: exit-codes -->\nafter\n")
    reported = tables("--check", str(readme))
    assert reported.returncode == 1
    assert "`make format` writes it" in reported.stderr
    assert "| 0 | fine |" in readme.read_text()
    assert tables(str(readme)).returncode == 0
    assert "| 0 | done |\n| 1 | some items failed" in readme.read_text()
    assert readme.read_text().startswith("before\n")
    assert readme.read_text().endswith("-->\nafter\n")
    assert tables("--check", str(readme)).returncode == 0
