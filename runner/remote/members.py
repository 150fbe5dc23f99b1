"""The nodes of a run: they come from places that a plugin offers, and may be lost or left out."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from runner import events as ev
from runner.errors import ExitCode, PluginError, RunnerError, StageError, StorageError, error_of, in_words
from runner.remote.messages import Refused, Welcome
from runner.remote.node import Gone, Node, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.api import Places
    from runner.pipeline.stage import PipelineStage
    from runner.remote.greeting import Greeter
    from runner.remote.messages import Message, StageOffer
    from runner.remote.node import Inbox
    from runner.supervisor.executor import OpenRun

    Take = Callable[[Node, Message | Gone | StorageError], None]

ASKED = 1.0  # seconds between questions for new places
WAIT = 0.1  # seconds that messages are waited for, between looks at places
GRACE = 30.0  # seconds that a run without nodes waits, if ``Places.waiting`` gives no reason to


class Members:
    """All nodes of a run so far, and the places where more may start."""

    def __init__(self, run: OpenRun, executor: str, places: Places, greeter: Greeter) -> None:
        """``executor`` is its name, for messages."""
        self.run = run
        self.nodes: list[Node] = []
        self._executor = executor
        self._places = places
        self._greeter = greeter
        self._inbox: Inbox = queue.SimpleQueue()
        self._asked = 0.0
        self._waiting = ""
        """The last result of ``Places.waiting``: why no more agents start."""
        self._bereft_since: float | None = None

    @property
    def ready(self) -> list[Node]:
        return [node for node in self.nodes if node.is_ready]

    def offer(self, stage: PipelineStage) -> StageOffer:
        """What a stage is expected to take: the plan of the first node that is ready."""
        welcome = self.ready[0].welcome
        assert welcome is not None  # noqa: S101 - it is ready
        return welcome.stages[stage.index]

    def greet(self) -> None:
        """Greet nodes at new places, at most once a second."""
        if time.monotonic() - self._asked < ASKED:
            return
        self._asked = time.monotonic()
        for node in self._ask(self._new_nodes):
            self._greeter.greet(node)
        reason, before = self._ask(self._places.waiting), self._waiting
        self._waiting = reason
        if reason and reason != before and not self.ready:
            self.run.publisher.waiting(reason)

    def _new_nodes(self) -> list[Node]:
        known = len(self.nodes)
        for channel in self._places.new():
            self.nodes.append(Node(channel, len(self.nodes), self.run.directory.incoming, self._inbox))
        return self.nodes[known:]

    def hear(self, seconds: float, take: Take | None = None) -> None:
        """Take what nodes have sent; wait so long for the first. ``take`` takes what concerns a stage."""
        with contextlib.suppress(queue.Empty):
            while True:
                node, message = self._inbox.get(timeout=seconds)
                seconds = 0.0
                self._take(node, message, take)

    def lose(self, node: Node, gone: Gone, stage: str | None = None, items: Sequence[str] = ()) -> None:
        """Mark a node as gone, publish that, and free its place; a hostile one is not restarted."""
        if node.state in (State.GONE, State.REFUSED):
            return
        node.state, node.reason, node.code = State.GONE, gone.reason, int(ExitCode.STAGE)
        event = ev.NodeLost(node=node.name, reason=gone.reason, stage=stage, items=list(items))
        self.run.publisher.events.emit(event)
        if not gone.hostile:
            self._ask(node.channel.ended)
        threading.Thread(target=node.close, daemon=True).start()

    def refuse(self, node: Node, code: int, reason: str) -> None:
        """Mark a node as refused, publish that, and free its place."""
        node.state, node.reason, node.code = State.REFUSED, reason, code
        self.run.publisher.events.emit(ev.NodeRefused(node=node.name, code=code, reason=reason))
        threading.Thread(target=node.close, daemon=True).start()

    def check_left(self) -> None:
        """Check that there is a node, or that one may come.

        Raises:
            RunnerError: neither; it has a table of the nodes that there were.

        """
        states = {node.state for node in self.nodes}
        if states & {State.READY, State.STARTING} or self._waiting:
            self._bereft_since = None
            return
        now = time.monotonic()
        self._bereft_since = self._bereft_since or now
        if now - self._bereft_since > GRACE or (states == {State.REFUSED}):
            raise self._none_left()

    def wait_for_one(self) -> None:
        """Wait until a node is ready.

        Raises:
            RunnerError: none is, and none may come.

        """
        while not self.ready:
            self.greet()
            self.hear(WAIT)
            self.check_left()

    def _take(self, node: Node, message: Message | Gone | StorageError, take: Take | None) -> None:
        if node.state is State.STARTING:
            match message:
                case Welcome():
                    self._admit(node, message)
                case Refused():
                    self.refuse(node, message.code, message.error)
                case Gone():
                    self.lose(node, message)
                case StorageError():
                    raise message
        elif node.state is State.READY:
            if take is not None:
                take(node, message)
            elif isinstance(message, Gone):
                self.lose(node, message)

    def _admit(self, node: Node, welcome: Welcome) -> None:
        refusal = self._greeter.refusal(welcome)
        if refusal is not None:
            self.refuse(node, refusal.code, refusal.reason)
            return
        node.welcome, node.state = welcome, State.READY
        node.shared = self._greeter.is_shared(node, welcome)
        placements = {offer.name: offer.placement for offer in welcome.stages}
        device = welcome.stages[0].device if welcome.stages else ""
        joined = ev.NodeJoined(node=node.name, host=welcome.host, device=device, stages=placements)
        self.run.publisher.events.emit(joined)

    def _none_left(self) -> RunnerError:
        if not self.nodes:
            return StageError(f"executor '{self._executor}': no place for an agent came")
        width = max(len(node.name) for node in self.nodes)
        table = "\n".join(f"  {node.name:{width}}  {node.reason}" for node in self.nodes)
        codes = [node.code for node in self.nodes if node.state is State.REFUSED]
        return error_of(max(codes, default=int(ExitCode.STAGE)), f"no node can take part:\n{table}")

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Call the plugin's code.

        Raises:
            PluginError: it fails.

        """
        try:
            return question()
        except (RunnerError, KeyboardInterrupt):
            raise
        except Exception as error:
            raise PluginError(f"executor '{self._executor}': {in_words(error)}") from error

    def close(self) -> None:
        """End all agents and free their places."""
        closing = [threading.Thread(target=node.close, daemon=True) for node in self.nodes]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        with contextlib.suppress(Exception):
            self._places.close()
