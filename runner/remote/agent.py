"""An agent: runs stages on one device, with tasks that a run on another machine sends.

``python -P -m runner.remote.agent``: messages come in on stdin and go out on stdout. It knows the manifest's
stages but none of its items. It ends when its stdin does, and its workers with it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import traceback
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO

from runner.errors import ExitCode, PluginError, RunnerError, StorageError
from runner.machine.describe import Machine, installed_with
from runner.manifest.load import parse
from runner.manifest.problems import Problems
from runner.pipeline.binding import Pipeline, bind_stages
from runner.pipeline.checkpoints import with_checkpoints
from runner.plugins import discover
from runner.remote.agent_stage import AgentFolders, AgentStage
from runner.remote.messages import (
    INPUT,
    PROTOCOL,
    TO_AGENT,
    Begin,
    End,
    Give,
    Hello,
    Message,
    Piece,
    Refused,
    StageOffer,
    StopStage,
    Welcome,
    Withdraw,
    decode,
)
from runner.remote.outbox import Outbox
from runner.remote.reporting import AgentPublisher, EventForwarder
from runner.remote.staging import FILE_NAME, Staging
from runner.remote.tasks import sampled
from runner.remote.wire import Frames, WireError
from runner.rundir.directory import SHARED_WORD, RunDirectory
from runner.rundir.journal import Events
from runner.rundir.lock import Lock, held_by
from runner.supervisor.executor import OpenRun
from runner.supervisor.local import LocalExecutor
from runner.supervisor.signals import Interrupts

FOLDER = "RUNNER_AGENT_FOLDER"
"""Environment variable: the folder on this machine that stands for the manifest's, for paths of models."""
SHARE = "RUNNER_AGENT_SHARE"
"""Environment variable: the number of agents on this machine, which share its RAM."""
SHARES_FOLDER = "RUNNER_AGENT_SHARES_FOLDER"
"""Environment variable: with 0, results are sent even if the run directory can be reached from here."""
PREFIX = "runner-agent-"
READ = 1 << 20  # bytes at a time


class Agent:
    """One agent, from its hello to its end."""

    def __init__(self, commands: int, replies: IO[bytes], scratch: Path) -> None:
        """``scratch`` is a folder of its own."""
        self._commands = commands
        self._replies = replies
        self._scratch = scratch
        self._outbox = Outbox(self._send, lambda _reason: self._leave())
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._files = Staging(scratch)
        self._stage: AgentStage | None = None

    def run(self) -> None:
        """Serve until stdin ends."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        hello = self._messages.get()
        try:
            with ExitStack() as stack:
                self._serve(hello, stack)
        except RunnerError as error:
            self._refuse(error.exit_code, str(error))
        except Exception as error:
            traceback.print_exc()
            self._refuse(ExitCode.BUG, f"{type(error).__name__}: {error}")

    def _serve(self, hello: Message, stack: ExitStack) -> None:
        if not isinstance(hello, Hello):
            raise PluginError(f"'{hello.kind}' came before 'hello'")
        if hello.protocol != PROTOCOL:
            raise PluginError(f"the run speaks protocol {hello.protocol}, this agent {PROTOCOL}")
        pipeline = self._pipeline(hello)
        executor = LocalExecutor(pipeline, machine=_machine(pipeline))
        own = RunDirectory(self._scratch / "run", hello.node)
        events = Events()
        forwarder = EventForwarder(self._outbox)
        events.listeners.append(forwarder)
        publisher = AgentPublisher(pipeline, own, events, self._outbox)
        interrupts = Interrupts()
        executor.open(OpenRun(pipeline, own, publisher, interrupts, None), stack)
        executor.prepare()
        executor.plan(pipeline.stages)
        shared = RunDirectory(Path(hello.run), hello.node)
        places = AgentFolders(own, shared, self._scratch / INPUT)
        self._stage = AgentStage(pipeline, executor, publisher, interrupts, self._outbox, places)
        self._outbox.put(self._welcome(hello, pipeline, executor))
        while True:
            begin = self._messages.get()
            if isinstance(begin, Begin):
                self._stage.run(begin)
                forwarder.flush()

    def _pipeline(self, hello: Hello) -> Pipeline:
        """The manifest's stages, with samples as items.

        Raises:
            RunnerError: a plugin is not installed, or the manifest does not fit those that are.

        """
        path = Path(hello.path)
        if folder := os.environ.get(FOLDER):
            path = Path(folder, path.name)
        manifest = parse(path, hello.manifest, hello.sets)
        problems = Problems(list(manifest.problems))
        plugins = discover()
        manifest = with_checkpoints(manifest, plugins, problems)
        stages = bind_stages(manifest, plugins, problems)
        problems.check()
        if len(hello.threads) != len(stages):
            raise PluginError("the number of stages is another one here")
        stages = tuple(
            replace(stage, budget=stage.budget.model_copy(update={"threads": threads}))
            for stage, threads in zip(stages, hello.threads, strict=True)
        )
        pipeline = Pipeline(manifest, plugins, stages, ())
        return replace(pipeline, items=sampled(pipeline, hello.samples, self._scratch / INPUT))

    def _welcome(self, hello: Hello, pipeline: Pipeline, executor: LocalExecutor) -> Welcome:
        prints, offers = executor.resolved.fingerprints, []
        for stage in pipeline.stages:
            plan, model = executor.plans[stage.name], executor.resolved.model(stage)
            offers.append(
                StageOffer(
                    name=stage.name,
                    version=stage.spec.version,
                    fingerprint=prints[stage.index].model,
                    loras=dict(prints[stage.index].loras),
                    placement=plan.chosen.placement,
                    group=plan.chosen.group,
                    device=plan.limits.device,
                    output_bytes=plan.need.item.output_bytes,
                    predicted=dict(plan.chosen.predicted),
                    source=model.record() if model else None,
                )
            )
        names = [pipeline.plugins.distribution_of(stage.spec.name) for stage in pipeline.stages]
        versions = installed_with(names)
        return Welcome(PROTOCOL, socket.gethostname(), os.getpid(), versions, offers, _answer(hello))

    def _refuse(self, code: int, error: str) -> None:
        self._outbox.put(_refusal(code, error))
        self._outbox.close()
        threading.Event().wait()  # until stdin ends, so that the run can read the refusal

    def _listen(self) -> None:
        frames = Frames()
        try:
            while data := os.read(self._commands, READ):
                for head, body in frames.feed(data):
                    self._take(decode(head, TO_AGENT), body)
        except WireError as error:
            print(f"runner.remote.agent: {error}", file=sys.stderr)  # noqa: T201 - the agent's log
        except StorageError as error:
            self._outbox.put(_refusal(error.exit_code, str(error)))
            self._outbox.close()
        except BaseException:
            traceback.print_exc()
        finally:
            self._leave()

    def _take(self, message: Message, body: bytes) -> None:
        stage = self._stage
        if isinstance(message, Piece) and message.role == INPUT:
            if not FILE_NAME.fullmatch(message.name):
                raise WireError(f"{message.name!r} is no name of a file")
            self._files.write(Path(INPUT, message.name), message, body)
        elif stage is None or isinstance(message, Begin):
            if isinstance(message, Begin) and stage is not None:
                stage.expect(message)
            self._messages.put(message)
        elif isinstance(message, Piece):
            stage.receive(message, body)
        elif isinstance(message, Give):
            stage.give(message)
        elif isinstance(message, Withdraw):
            stage.withdraw(message)
        elif isinstance(message, End):
            stage.end()
        elif isinstance(message, StopStage):
            stage.stop()

    def _send(self, data: bytes) -> None:
        self._replies.write(data)
        self._replies.flush()

    def _leave(self) -> None:
        """End this process; the kernel ends its workers."""
        remove_scratch(self._scratch)
        os._exit(0)


def _refusal(code: int, error: str) -> Refused:
    return Refused(PROTOCOL, socket.gethostname(), int(code), error)


def _machine(pipeline: Pipeline) -> Machine | None:
    """The share of the machine that is this agent's; None for all of it."""
    with contextlib.suppress(ValueError):
        share = int(os.environ.get(SHARE, "1"))
        if share > 1:
            with_accelerators = any(stage.budget.device != "cpu" for stage in pipeline.stages)
            machine = Machine.here(with_accelerators=with_accelerators)
            return replace(machine, total_ram=machine.usable_ram // share, container_limit=None)
    return None


def _answer(hello: Hello) -> str:
    """Write an answer file beside the run's probe file; returns "" if that cannot be reached from here."""
    if os.environ.get(SHARES_FOLDER) == "0":
        return ""
    word = Path(hello.run, f"{SHARED_WORD}{hello.word}")
    name = re.sub("[^A-Za-z0-9_-]", "_", hello.node)
    try:
        if word.read_text() != hello.word:
            return ""
        answer = secrets.token_hex(16)
        word.with_name(f"{word.name}-{name}").write_text(answer)
    except OSError:
        return ""
    return answer


def _scratch() -> Path:
    """A folder of its own; those of agents that were killed are removed."""
    base = Path(tempfile.gettempdir())
    for old in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if (old / ".lock").exists() and held_by(old / ".lock") is None:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def remove_scratch(scratch: Path) -> None:
    """Remove an agent's folder. What workers still write stays, with the lock, for the next agent."""
    lock = scratch / ".lock"
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if path != lock:
                shutil.rmtree(path, ignore_errors=True)
    try:
        lock.unlink()
        scratch.rmdir()
    except OSError:
        with contextlib.suppress(OSError):
            lock.touch()


def main() -> None:
    """The agent's process: what it prints goes to stderr, since stdout carries messages."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the run's, which tells its agents
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        scratch = _scratch()
        lock = Lock(scratch / ".lock")
        lock.acquire(str(scratch), None)
    except (RunnerError, OSError) as error:
        reason = f"its temporary folder cannot be used: {error}"
        replies.write(_refusal(ExitCode.STORAGE, reason).frame())
        replies.flush()
        return
    Agent(0, replies, scratch).run()


if __name__ == "__main__":
    main()
