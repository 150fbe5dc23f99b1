"""Pages of the site whose text lies elsewhere in the repository, where GitHub's readers look for it.

MkDocs calls the functions (``hooks`` in ``mkdocs.yml``). Links between documents are right in the repository;
here they become those of the site, and what the site does not have stays as text without a link.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "plugins/README.md": "plugins.md",
    "plugins/flux/README.md": "flux.md",
    "plugins/diffusers/README.md": "diffusers.md",
    "plugins/ray/README.md": "ray.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    ".github/contact-sheet.png": "contact-sheet.png",
    ".github/report.png": "report.png",
}
"""Files of the repository, and what they are called on the site."""
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^][]*)\]\((?P<target>[^)#\s]*)(?P<rest>[^)]*)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie elsewhere."""
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn the repository's links into the site's."""
    source = Path(str(page.file.abs_src_path)).relative_to(ROOT)
    return LINK.sub(lambda link: _on_site(link, source.parent), markdown)


def _on_site(link: re.Match[str], folder: Path) -> str:
    if not link["target"] or ":" in link["target"]:  # in the page itself, or elsewhere on the web
        return link[0]
    path = Path(os.path.normpath(folder / link["target"])).as_posix()
    if not (ROOT / path).exists():
        return link[0]  # MkDocs refuses it
    name = ELSEWHERE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    return f"{link['image']}[{link['text']}]({name}{link['rest']})" if name else link["text"]
