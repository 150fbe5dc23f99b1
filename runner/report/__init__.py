"""``report.html``: a run's outputs, stages, failures and warnings on one self-contained page.

The page is made from the journal and the run directory alone, so it can be written at any time, also after a
kill; :class:`~runner.report.live.LiveReport` updates it during a run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.report.page import Page
from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path) -> Path:
    """Write the page of a run directory; returns its path.

    Raises:
        StorageError: it cannot be written.

    """
    run = RunDirectory(directory)
    page = Page(run)
    page.read()
    page.write(live=False)
    return run.report
