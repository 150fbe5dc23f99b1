"""The stage that an agent runs now. Messages come in one thread while the stage runs in another."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ExitCode, InterruptedRunError, RunnerError
from runner.remote.messages import HANDOFF, STATE, Ended, Withdrawn
from runner.remote.results import state_file
from runner.remote.staging import FILE_NAME, Staging
from runner.remote.tasks import taken
from runner.remote.wire import WireError
from runner.supervisor.executor import StageTasks
from runner.supervisor.feed import TaskFeed
from runner.work.work import Work

if TYPE_CHECKING:
    from runner.pipeline.binding import Pipeline
    from runner.pipeline.stage import PipelineStage
    from runner.remote.messages import Begin, Give, Piece, Withdraw
    from runner.remote.outbox import Outbox
    from runner.remote.reporting import AgentPublisher
    from runner.rundir.directory import RunDirectory
    from runner.supervisor.local import LocalExecutor
    from runner.supervisor.signals import Interrupts
    from runner.work.keys import Keyed

LOG_LIMIT = 64 << 10  # bytes of a log's end that are sent to the run


@dataclass(frozen=True)
class AgentFolders:
    """Where an agent reads and writes: a run directory of its own, or the run's where both see that."""

    own: RunDirectory
    shared: RunDirectory
    inputs: Path
    """Files of items' parameters."""


class AgentStage:
    """One stage after another; between ``expect`` and the end of ``run``, one is current."""

    _stage: PipelineStage
    _work: Work
    _feed: TaskFeed
    _keys: dict[str, tuple[Keyed, ...]]

    def __init__(
        self,
        pipeline: Pipeline,
        executor: LocalExecutor,
        publisher: AgentPublisher,
        interrupts: Interrupts,
        outbox: Outbox,
        folders: AgentFolders,
    ) -> None:
        self._pipeline = pipeline
        self._stages = {stage.name: stage for stage in pipeline.stages}
        self._executor = executor
        self._publisher = publisher
        self._interrupts = interrupts
        self._outbox = outbox
        self._folders = folders
        self._files = Staging(folders.own.path)
        self._problem: RunnerError | None = None

    def expect(self, begin: Begin) -> None:
        """A stage is about to begin: its files and tasks follow.

        Raises:
            WireError: the manifest has no such stage.

        """
        stage = self._stages.get(begin.stage)
        if stage is None:
            raise WireError(f"there is no stage {begin.stage!r}")
        self._stage, self._feed, self._keys, self._problem = stage, TaskFeed(), {}, None
        self._interrupts.count = 0
        self._remove_unneeded()
        directory = self._folders.shared if begin.shared else self._folders.own
        self._work = Work(self._pipeline, self._keys, directory)
        self._publisher.begin(self._work, stage, shared=begin.shared)

    def _remove_unneeded(self) -> None:
        """Remove the hand-offs here that neither this stage nor a later one takes: the run has them."""
        stages = self._pipeline.stages
        needed = {n for stage in stages[self._stage.index :] for n in stage.sources}
        for stage in stages[: self._stage.index]:
            if stage.index not in needed:
                shutil.rmtree(self._folders.own.path / HANDOFF / stage.name, ignore_errors=True)

    def receive(self, piece: Piece, data: bytes) -> None:
        """Take a part of a hand-off or of a saved state.

        Raises:
            WireError: it is neither, or its name is none of ours.

        """
        if piece.role not in (HANDOFF, STATE) or piece.stage not in self._stages:
            raise WireError(f"no file of role {piece.role!r} is expected here")
        if not FILE_NAME.fullmatch(piece.name):
            raise WireError(f"{piece.name!r} is no name of a file")
        self._files.write(Path(piece.role, piece.stage, piece.name), piece, data)

    def give(self, message: Give) -> None:
        """Accept tasks. If a key does not fit this agent's code and model, the stage ends with an error."""
        prints = self._executor.resolved.fingerprints[self._stage.index]
        tasks = []
        try:
            for one in message.tasks:
                found = taken(one, self._pipeline, self._stage, prints, self._folders.inputs)
                self._keys[one.item] = found.keys
                self._publisher.take(found.task)
                tasks.append(found.task)
        except RunnerError as error:
            self._problem = error
            self.stop()
        else:
            self._feed.put(tasks)

    def withdraw(self, message: Withdraw) -> None:
        """Give back those tasks that no worker has."""
        items = [task.item.id for task in self._feed.withdraw(set(message.items))]
        self._publisher.give_back(items)
        self._outbox.put(Withdrawn(items))

    def end(self) -> None:
        self._feed.close()

    def stop(self) -> None:
        """End the stage now; the states of items in flight are saved."""
        self._interrupts.count += 1
        self._feed.close()

    def run(self, begin: Begin) -> None:
        """Run the stage to its end, then send ``Ended``."""
        code, error = ExitCode.DONE, ""
        tasks = StageTasks(
            self._work,
            self._stage,
            (),
            0,
            lambda _task, _done: None,
            feed=self._feed,
            source=begin.source,
        )
        try:
            self._executor.run_stage(tasks)
        except InterruptedRunError:
            code = ExitCode.INTERRUPTED
            self._send_states()
        except RunnerError as failed:
            code, error = failed.exit_code, str(failed)
        if self._problem is not None:
            code, error = self._problem.exit_code, str(self._problem)
        result = self._publisher.result
        self._outbox.put(
            Ended(
                self._stage.name,
                int(code),
                error,
                dict(result.measured) if result else {},
                dict(result.streamed) if result and result.streamed else None,
                self._log(),
            )
        )

    def _send_states(self) -> None:
        if self._work.directory is self._folders.shared:
            return
        for task in self._publisher.open_tasks:
            (role, name), path = state_file(self._work, self._stage, task)
            if (whole := self._work.directory.path / path).exists():
                self._publisher.send_file(role, task, name, whole)

    def _log(self) -> str:
        """The end of the workers' logs; empty if the run directory is shared, where the run has them."""
        if self._work.directory is self._folders.shared:
            return ""
        text = b""
        for path in sorted((self._folders.own.path / "logs").glob(f"*-{self._stage.name}-*.log")):
            with contextlib.suppress(OSError):
                text += path.read_bytes()
                path.unlink()
        return text[-LOG_LIMIT:].decode(errors="replace")
