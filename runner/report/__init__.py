"""``report.html``: what a run made, how it went and what it took, as one page that needs nothing else.

The page shows what the journal tells and what lies in the run directory, so that it can be written at any
time, after a kill too; :class:`~runner.report.live.LiveReport` does so while a run goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.report.page import Page
from runner.rundir.directory import RunDirectory

if TYPE_CHECKING:
    from pathlib import Path


def write(directory: Path) -> Path:
    """Write the page of a run directory anew, and return where it is.

    Raises:
        StorageError: it cannot be written.

    """
    run = RunDirectory(directory)
    page = Page(run)
    page.read()
    page.write(live=False)
    return run.report
