"""Runs several calls of unmodified code concurrently, so that each block is loaded once for all of them.

Each call runs in its own greenlet. A hook before each streamed block switches back to the hub, which loads
the block, resumes every call that waits for it until its next block, and goes to the next block. Calls may
differ in sizes, steps and the order of their blocks.
"""

from __future__ import annotations

import contextlib
import contextvars
import threading
from functools import partial
from typing import TYPE_CHECKING

import greenlet

from runner.stream.context_switcher import ContextSwitcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from runner.stream.blocks import Block
    from runner.stream.context_switcher import CallState

    Stop = Callable[[], BaseException | None]
    During = Callable[[int], AbstractContextManager[object]]


def nothing(_call: int) -> AbstractContextManager[object]:
    """The default of ``during``: no context."""
    return contextlib.nullcontext()


class Lockstep:
    """Runs calls in lockstep over blocks; ``load`` loads a block's weights."""

    def __init__(self, load: Callable[[Block], None]) -> None:
        self._load = load
        self._order: dict[Block, int] = {}
        self._thread = threading.get_ident()
        self._hub: greenlet.greenlet | None = None

    def watch(self, block: Block) -> None:
        """Make calls wait before this block. Blocks are added in the order in which they usually run."""
        self._order[block] = len(self._order)
        block.module.register_forward_pre_hook(lambda *_: self._arrive(block), prepend=True)

    def run(self, calls: Sequence[Callable[[], object]], stop: Stop, during: During = nothing) -> None:
        """Run the calls to their ends. An error in one ends the others, and is raised here.

        ``stop`` is called before a call is resumed; an exception that it returns is raised in every call.
        ``during`` returns, for the number of a call, a context to enter while that call runs.
        """
        if self._hub is not None:
            raise RuntimeError("a call in lockstep cannot run others in lockstep")
        self._hub = greenlet.getcurrent()
        try:
            _Run(self._load, self._order, stop, during).run(calls)
        finally:
            self._hub = None

    def _arrive(self, block: Block) -> None:
        """The hook: wait for the block; outside of :meth:`run`, load it at once."""
        if threading.get_ident() != self._thread:
            # the next block would overwrite its weights while the other thread computes
            raise RuntimeError(f"the streamed block '{block.name}' was called from another thread")
        current = greenlet.getcurrent()
        if self._hub is not None and current is not self._hub:
            self._hub.switch((block, current))
        else:
            self._load(block)


class _Call:
    """A call that has started, and the block that it waits for."""

    def __init__(
        self,
        function: Callable[[], object],
        state: CallState,
        during: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self.during = during
        self.greenlet = greenlet.greenlet(function)
        self.greenlet.gr_context = contextvars.copy_context()
        self.state = state
        self.block: Block | None = None
        self.waiting = self.greenlet
        """The greenlet that waits: libraries may start greenlets of their own inside a call."""

    @property
    def ended(self) -> bool:
        return bool(self.greenlet.dead)


class _Run:
    """One group of calls, from start to end."""

    def __init__(
        self, load: Callable[[Block], None], order: Mapping[Block, int], stop: Stop, during: During
    ) -> None:
        self._load = load
        self._order = order
        self._stop = stop
        self._during = during
        self._switcher = ContextSwitcher()
        self._calls: list[_Call] = []

    def run(self, functions: Sequence[Callable[[], object]]) -> None:
        with self._switcher.active():
            try:
                reason = self._start(functions) or self._serve()
                errors = self._end(reason) if reason is not None else []
                if errors:
                    raise errors[0]
            finally:
                # end each in its own context; the garbage collector would use any other
                self._end(greenlet.GreenletExit())

    def _start(self, functions: Sequence[Callable[[], object]]) -> BaseException | None:
        """Run each call to its first block; returns the reason to stop, if there is one."""
        for number, function in enumerate(functions):
            reason = self._stop()
            if reason is not None:
                return reason
            self._calls.append(_Call(function, self._switcher.new_state(), partial(self._during, number)))
            self._resume(self._calls[-1])
        return None

    def _serve(self) -> BaseException | None:
        """Load block after block until all calls have ended; returns the reason to stop, if there is one."""
        at = -1
        while waiting := [call.block for call in self._calls if call.block is not None]:
            block = min(waiting, key=lambda b: (self._order[b] - at - 1) % len(self._order))
            at = self._order[block]
            for call in [call for call in self._calls if call.block is block]:
                reason = self._stop()
                if reason is not None:
                    return reason
                self._load(block)  # again for each call: the call before may have added a component
                self._resume(call)
        return None

    def _resume(self, call: _Call, error: BaseException | None = None) -> None:
        """Run a call until it waits again or ends."""
        self._switcher.switch_to(call.state)
        call.block = None
        with call.during():
            waiting = call.waiting
            reached = waiting.switch() if error is None else waiting.throw(error.with_traceback(None))
        if not call.ended:
            call.block, call.waiting = reached

    def _end(self, error: BaseException) -> list[BaseException]:
        """Raise the error in each waiting call until the call has ended; returns what the calls raised."""
        errors: list[BaseException] = []
        for call in self._calls:
            while not call.ended:
                try:
                    self._resume(call, error)
                except BaseException as raised:
                    errors.append(raised)
        return errors
