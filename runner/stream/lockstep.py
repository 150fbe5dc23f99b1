"""Several calls of unmodified code side by side: each waits at a block until its weights are there.

Every call runs in a greenlet of its own. A hook before each streamed block switches back to the hub, which
brings the block's weights once, lets every call that waits there go on to its next block, and turns to the
next block. Calls may differ in sizes, steps, and in the way that they take through the blocks.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import greenlet  # type: ignore[import-untyped]

from runner.stream.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.stream.blocks import Block


class Lockstep:
    """Runs calls in lockstep over blocks; ``bring`` puts a block's weights in place."""

    def __init__(self, bring: Callable[[Block], None]) -> None:
        self._bring = bring
        self._order: dict[Block, int] = {}
        self._hub: greenlet.greenlet | None = None

    def watch(self, block: Block) -> None:
        """Have calls wait at this block; blocks are watched in the order that they run in."""
        self._order[block] = len(self._order)
        block.module.register_forward_pre_hook(lambda *_: self._arrive(block), prepend=True)

    def run(self, calls: Sequence[Callable[[], object]], stop: Callable[[], BaseException | None]) -> None:
        """Run the calls to their ends; what one raises ends them all.

        ``stop`` is asked before each block: what it returns is raised in every call, where it waits.
        """
        self._hub = greenlet.getcurrent()
        waiting: dict[greenlet.greenlet, Block] = {}
        states: dict[greenlet.greenlet, State] = {}
        own = State.now()

        def go_on(item: greenlet.greenlet, throw: BaseException | None = None) -> None:
            states.get(item, own).restore()
            at = item.throw(throw) if throw is not None else item.switch()
            states[item] = State.now()
            waiting.pop(item, None)
            if not item.dead:
                waiting[item] = at

        try:
            for call in calls:
                item = greenlet.greenlet(call)
                item.gr_context = contextvars.copy_context()
                go_on(item)
            at = -1
            while waiting:
                reason = stop()
                block = min(waiting.values(), key=lambda b: (self._order[b] - at - 1) % len(self._order))
                at = self._order[block]
                if reason is None:
                    self._bring(block)
                for item in [item for item, b in waiting.items() if b is block]:
                    go_on(item, reason)
        finally:
            own.restore()
            self._hub = None

    def _arrive(self, block: Block) -> None:
        """The hook: wait for the block, or outside of :meth:`run` bring it at once."""
        current: Any = greenlet.getcurrent()
        if self._hub is not None and current is not self._hub:
            self._hub.switch(block)
        else:
            self._bring(block)
