"""Runs a batch again and again on a disk of its own that fails each time, and then once more.

``python small_disk.py FOLDER MOMENT,COUNT,LEFT...`` is for a process that may mount: ``unshare -Urm``. It
prints what became of each run: from its moment on, the disk has only so many KiB left, or, where that is
``none``, the folder that it writes to is read-only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.pausing import run_paused
from project import Project

from runner.files import handoff

if TYPE_CHECKING:
    from runner.testing import Outcome

RUN = ["run", "toy.toml"]


def main(folder: Path, moments: list[str]) -> None:
    project = Project(folder)
    project.environment["PYTHONPATH"] = str(project.packages)
    runs = folder / "runs"
    runs.mkdir()
    mount("-t", "tmpfs", "-o", "size=32m", "none", str(runs))
    for text in moments:
        moment, count, left = text.split(",")
        if left == "none":
            place = runs / "toy" / moment.split()[2].partition("/")[0]
            tell(project, text, run_paused(project, RUN, moment, int(count), partial(set_read_only, place)))
            subprocess.run(["umount", str(place)], check=True)
        else:
            filler = runs / "filler"
            tell(
                project, text, run_paused(project, RUN, moment, int(count), partial(fill, filler, int(left)))
            )
            filler.unlink()
    mount("-o", "remount,ro", str(runs))
    tell(project, "from the start,0,none", project.runner(*RUN))
    mount("-o", "remount,rw", str(runs))
    tell(project, "mended", project.runner(*RUN))
    shutil.copytree(runs, folder / "kept")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def set_read_only(place: Path) -> None:
    mount("--bind", str(place), str(place))
    mount("-o", "remount,ro,bind", str(place))


def fill(filler: Path, free: int) -> None:
    """Fill the disk up to so many KiB."""
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 12))
        except OSError:
            file.truncate(max(0, file.tell() - free * 1024))


def tell(project: Project, what: str, outcome: Outcome) -> None:
    """Print what became of a run; what it left is whole."""
    for path in (project.folder / "runs/toy").rglob("*.safetensors"):
        handoff.read(path, path.stem)
    print(json.dumps([what, outcome.code, outcome.stderr]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
