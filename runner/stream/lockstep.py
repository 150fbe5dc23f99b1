"""Several calls of unmodified code side by side: each waits at a block until its weights are there.

Every call runs in a greenlet of its own. A hook before each streamed block switches back to the hub, which
brings the block's weights once, lets every call that waits there go on to its next block, and turns to the
next block. Calls may differ in sizes, steps, and in the way that they take through the blocks.
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
    """Nobody wants to know whose turn it is."""
    return contextlib.nullcontext()


class Lockstep:
    """Runs calls in lockstep over blocks; ``bring`` puts a block's weights in place."""

    def __init__(self, load: Callable[[Block], None]) -> None:
        self._load = load
        self._order: dict[Block, int] = {}
        self._thread = threading.get_ident()
        self._hub: greenlet.greenlet | None = None

    def watch(self, block: Block) -> None:
        """Have calls wait at this block; blocks are watched in the order that they run in."""
        self._order[block] = len(self._order)
        block.module.register_forward_pre_hook(lambda *_: self._arrive(block), prepend=True)

    def run(self, calls: Sequence[Callable[[], object]], stop: Stop, during: During = nothing) -> None:
        """Run the calls to their ends; what one raises ends the others, and is raised here.

        ``stop`` is asked whenever a call is to go on: what it returns is raised in every call, at its block.
        ``during`` gives, for the number of a call, what is to be entered while that call has its turn.
        """
        if self._hub is not None:
            raise RuntimeError("a call in lockstep cannot run others in lockstep")
        self._hub = greenlet.getcurrent()
        try:
            _Run(self._load, self._order, stop, during).run(calls)
        finally:
            self._hub = None

    def _arrive(self, block: Block) -> None:
        """The hook: wait for the block, or outside of :meth:`run` bring it at once."""
        if threading.get_ident() != self._thread:
            # its weights would go, for those of the next block, while the other thread computes
            raise RuntimeError(f"the streamed block '{block.name}' was called from another thread")
        current = greenlet.getcurrent()
        if self._hub is not None and current is not self._hub:
            self._hub.switch((block, current))
        else:
            self._load(block)


class _Call:
    """A call under way, and the block that it waits at."""

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
        """The greenlet that came to the block: libraries start some of their own inside of a call."""

    @property
    def ended(self) -> bool:
        return bool(self.greenlet.dead)


class _Run:
    """One group of calls, from their starts to their ends."""

    def __init__(
        self, load: Callable[[Block], None], order: Mapping[Block, int], stop: Stop, during: During
    ) -> None:
        self._load = load
        self._order = order
        self._stop = stop
        self._during = during
        self._turns = ContextSwitcher()
        self._calls: list[_Call] = []

    def run(self, functions: Sequence[Callable[[], object]]) -> None:
        with self._turns.taken():
            try:
                reason = self._start(functions) or self._serve()
                errors = self._end(reason) if reason is not None else []
                if errors:
                    raise errors[0]
            finally:
                # now, in their turns: the garbage collector would end them anywhere
                self._end(greenlet.GreenletExit())

    def _start(self, functions: Sequence[Callable[[], object]]) -> BaseException | None:
        """Let each call come to its first block; returns the reason to stop, if there is one."""
        for number, function in enumerate(functions):
            reason = self._stop()
            if reason is not None:
                return reason
            self._calls.append(_Call(function, self._turns.another(), partial(self._during, number)))
            self._go_on(self._calls[-1])
        return None

    def _serve(self) -> BaseException | None:
        """Bring block after block until all calls have ended; returns the reason to stop, if there is one."""
        at = -1
        while waiting := [call.block for call in self._calls if call.block is not None]:
            block = min(waiting, key=lambda b: (self._order[b] - at - 1) % len(self._order))
            at = self._order[block]
            for call in [call for call in self._calls if call.block is block]:
                reason = self._stop()
                if reason is not None:
                    return reason
                self._load(block)  # for each: the one before may have loaded a component
                self._go_on(call)
        return None

    def _go_on(self, call: _Call, error: BaseException | None = None) -> None:
        """Give a call its turn, until it waits again or ends."""
        self._turns.turn_to(call.state)
        call.block = None
        with call.during():
            waiting = call.waiting
            arrived = waiting.switch() if error is None else waiting.throw(error.with_traceback(None))
        if not call.ended:
            call.block, call.waiting = arrived

    def _end(self, error: BaseException) -> list[BaseException]:
        """Raise the error in each call, wherever it waits, until it has ended; returns what came of it."""
        errors: list[BaseException] = []
        for call in self._calls:
            while not call.ended:
                try:
                    self._go_on(call, error)
                except BaseException as raised:
                    errors.append(raised)
        return errors
