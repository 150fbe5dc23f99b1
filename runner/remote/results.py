"""The files of a task's result: their names and paths, and whether those that arrived are complete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.files import handoff, provenance
from runner.remote.messages import HANDOFF, OUTPUT, STATE

if TYPE_CHECKING:
    from pathlib import Path

    from runner.pipeline.stage import PipelineStage
    from runner.work.demand import Task
    from runner.work.work import Work

FileKey = tuple[str, str]
"""The role of a file, and its name in the folder of that role."""


def result_files(work: Work, stage: PipelineStage, task: Task) -> dict[FileKey, Path]:
    """The files of a task's result, with their paths in the run directory.

    In the order in which they are moved: a hand-off has the digests of the others, so it comes last.
    """
    root, role = work.directory.path, OUTPUT if stage.is_terminal else HANDOFF
    files: dict[FileKey, Path] = {}
    for path in work.files(task.item.id, stage).values():
        if stage.is_terminal:
            beside = provenance.sidecar(path)
            files[role, beside.name] = beside.relative_to(root)
        files[role, path.name] = path.relative_to(root)
    if stage.leaves_handoff:
        path = work.directory.handoff(stage.name, task.keyed.key)
        files[HANDOFF, path.name] = path.relative_to(root)
    return files


def state_file(work: Work, stage: PipelineStage, task: Task) -> tuple[FileKey, Path]:
    """The saved state of a task, with its path in the run directory."""
    path = work.directory.state(stage.name, task.keyed.key)
    return (STATE, path.name), path.relative_to(work.directory.path)


def problem_of(work: Work, stage: PipelineStage, task: Task) -> str | None:
    """What is wrong with a task's result in the work's directory; None if it is whole."""
    key = task.keyed.key
    if stage.leaves_handoff:
        try:
            handoff.read(work.directory.handoff(stage.name, key), key)
        except FileNotFoundError:
            return "its hand-off is missing"
        except (handoff.DamagedError, OSError) as error:
            return f"its hand-off is damaged: {error}"
    if not stage.is_terminal:
        return None
    optional = {output.name for output in stage.spec.outputs if output.optional}
    for name, path in work.files(task.item.id, stage).items():
        if not path.exists() and name not in optional:
            return f"{path.name} is missing"
        if path.exists() and not provenance.is_whole(path, key):
            return f"{path.name} is damaged, or was made under another key"
    return None


def is_state(path: Path, key: str) -> bool:
    """Whether a file is the saved state of a key."""
    try:
        handoff.read(path, key)
    except (OSError, handoff.DamagedError):
        return False
    return True
