"""Gives tasks to a node, and the files that they are made from: each once, before the tasks that need it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from runner.errors import UsageError
from runner.files.header import HeaderError, read_header
from runner.remote.messages import HANDOFF, INPUT, STATE, Give, Piece
from runner.remote.results import state_file
from runner.remote.staging import FILE_NAME
from runner.remote.tasks import InputFiles, task_message
from runner.remote.wire import HEAD_LIMIT, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.pipeline.stage import PipelineStage
    from runner.remote.messages import TaskMessage
    from runner.remote.node import Node
    from runner.supervisor.executor import StageTasks
    from runner.work.demand import Task
    from runner.work.work import Work

LARGE = HEAD_LIMIT // 4  # bytes of tasks that are sent in one message


def give(node: Node, work: StageTasks, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
    """Send tasks to a node; returns those that cannot be sent to any, with the reason."""
    refused: list[tuple[Task, str]] = []
    messages: list[TaskMessage] = []
    size = 0
    for task in tasks:
        inputs = InputFiles()
        try:
            message = task_message(work.work, work.stage, task, inputs)
            own = len(Give([message]).frame())
            files = list(_files(work.work, work.stage, task)) if not node.shared else []
            gone = [p for name, p in inputs.paths.items() if name not in node.held and not p.exists()]
        except (UsageError, WireError, OSError, HeaderError) as error:
            refused.append((task, f"it cannot be sent to a node: {error}"))
            continue
        if gone:
            refused.append((task, f"it cannot be sent to a node: there is no file {gone[0]} any more"))
            continue
        for name, path in inputs.paths.items():
            _send(node, Piece(INPUT, "", task.item.id, name, 0), path)
        for piece, path in files:
            _send(node, piece, path)
        if messages and size + own > LARGE:
            node.outbox.put(Give(messages))
            messages, size = [], 0
        messages.append(message)
        size += own
    if messages:
        node.outbox.put(Give(messages))
    return refused


def _send(node: Node, piece: Piece, path: Path) -> None:
    """Send a file that the node does not have. A saved state is sent anew: it changes."""
    if piece.role == STATE or piece.name not in node.held:
        node.held.add(piece.name)
        node.outbox.put_file(piece, path)


def _files(work: Work, stage: PipelineStage, task: Task) -> Iterator[tuple[Piece, Path]]:
    """The hand-offs that a task reads, the files beside them, and the saved state that it resumes from.

    Raises:
        OSError: a hand-off is not there.
        HeaderError: it is damaged.

    """
    for name, key in sorted(work.sources(task.item.id, stage)):
        path = work.directory.handoff(name, key)
        beside = json.loads(read_header(path).metadata.get("files", "{}"))
        for one in beside.values():
            if FILE_NAME.fullmatch(one["name"]):
                yield Piece(HANDOFF, name, task.item.id, one["name"], 0), path.with_name(one["name"])
        yield Piece(HANDOFF, name, task.item.id, path.name, 0), path
    (role, file), state = state_file(work, stage, task)
    if (whole := work.directory.path / state).exists():
        yield Piece(role, stage.name, task.item.id, file, 0), whole
