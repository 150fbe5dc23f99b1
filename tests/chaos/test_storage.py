"""Storage that fails: exit code 9, nothing half-written counts, and the run goes on once it is mended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from chaos.batch import made
from chaos.kills import KILLS
from chaos.pausing import run_paused

if TYPE_CHECKING:
    from collections.abc import Callable

    from project import Project

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
HANDOFF, OUTPUT = "worker unsynced handoff/make", "worker unsynced outputs"
LEFT = [0, 4, 8, 16, 24] if KILLS else [12]
"""KiB on a full disk."""
RUN = ["run", "toy.toml"]


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


@pytest.mark.skipif(not can_mount(), reason="no user namespaces here, which a small disk is mounted in")
@pytest.mark.parametrize("left", LEFT)
def test_a_disk_that_is_full_or_read_only(eight: Project, left: int) -> None:
    under_the_run = [(HANDOFF, 2, "none")] if KILLS else []
    moments = [*under_the_run, (HANDOFF, 2, left), (OUTPUT, 3, left)]
    driver = Path(__file__).with_name("small_disk.py")
    done = subprocess.run(
        [
            *NAMESPACE,
            sys.executable,
            driver,
            eight.folder,
            *(",".join(map(str, moment)) for moment in moments),
        ],
        env={
            **eight.environment,
            "PYTHONPATH": os.pathsep.join(map(str, (eight.packages, driver.parent.parent))),
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done
    *failing, mended = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(failing) == len(moments) + 1
    for what, code, stderr in failing:
        reason = "Read-only file system" if what.endswith("none") else "No space left on device"
        assert code == 9, (what, code, stderr)
        assert reason in stderr, (what, stderr)
    assert mended[1] == 0, mended
    assert made(eight.folder / "kept/toy") == made(eight.folder / "undisturbed/toy")


def test_a_run_directory_that_vanishes(eight: Project) -> None:
    runs = eight.folder / "runs"
    ways: list[Callable[[], object]] = [
        partial(shutil.rmtree, runs / "toy"),
        (runs / "toy/.lock").unlink,
        partial(shutil.rmtree, runs),
        partial((runs / "toy").rename, runs / "elsewhere"),
    ]
    for way in ways if KILLS else ways[:1]:
        outcome = run_paused(eight, RUN, "worker reported item_started", 4, way)
        assert outcome.code == 9, outcome
        assert "was removed or moved away under the run" in outcome.stderr, outcome
    again = eight.runner(*RUN)
    assert again.code == 0, again
    assert made(runs / "toy") == made(eight.folder / "undisturbed/toy")
