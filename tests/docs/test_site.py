"""The documents' site: it builds without a warning, has the guide in it, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ELSEWHERE = re.compile(r"""(?:<(?:script|img|iframe)[^>]*\ssrc|<link[^>]*\shref)="?(https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    assert len(pages) > 10
    assert not [path for path in pages if ELSEWHERE.search(path.read_text())]
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert not re.search(r"@import|url\(['\"]?(https?:)?//", styles)


def test_what_lies_elsewhere_in_the_repository_is_a_page(site: Path) -> None:
    assert "enlarge.bicubic" in page(site, "plugins")
    assert "true_cfg_scale" in page(site, "flux")
    assert "Reporting" in page(site, "security")
    home = (site / "index.html").read_text()
    for link in re.findall(r"\]\((docs/\w[^)]*)\.md\)", (ROOT / "README.md").read_text()):
        assert f'href="{link.removeprefix("docs/")}/"' in home, link
    assert "plugins/flux/demo_model" not in home  # a folder, which the site does not have
