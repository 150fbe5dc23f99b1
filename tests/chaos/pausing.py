"""A run that is stopped for a while at a chosen moment, for something to happen to what it writes on."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from waiting import wait_until

from runner.testing import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

SABOTAGE = str(Path(__file__).with_name("sabotage"))


def run_paused(
    project: Project, arguments: list[str], moment: str, count: int, happens: Callable[[], object]
) -> Outcome:
    """Run, with the worker stopped at the ``count``-th such moment until something has happened."""
    notes = project.folder / "notes"
    notes.mkdir(exist_ok=True)
    for path in notes.iterdir():
        path.unlink()
    (notes / "orders.json").write_text(json.dumps([(moment, count, ["worker STOP"])]))
    before = dict(project.environment)
    project.environment["PYTHONPATH"] = f"{SABOTAGE}:{project.environment['PYTHONPATH']}"
    project.environment["SABOTAGE"] = str(notes)
    try:
        process = project.start(*arguments)
    finally:
        project.environment = before
    wait_until(lambda: _stopped(process.pid) or process.poll() is not None, 60, f"it comes to '{moment}'")
    assert process.poll() is None, process.communicate()
    happens()
    for worker in _stopped(process.pid):
        worker.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate(timeout=60)
    return Outcome(["runner", *arguments], process.returncode, stdout, stderr)


def _stopped(supervisor: int) -> list[psutil.Process]:
    try:
        children = psutil.Process(supervisor).children(recursive=True)
        return [child for child in children if child.status() == psutil.STATUS_STOPPED]
    except psutil.NoSuchProcess:
        return []
