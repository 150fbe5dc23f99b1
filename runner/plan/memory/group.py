"""How many items share a pass over streamed weights."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from runner.memory.meter import core_count

if TYPE_CHECKING:
    from runner.plan.memory.limits import Limits
    from runner.plan.memory.need import Need

CHUNKS = 33 << 20
"""Bytes of the reads under way, see ``runner.stream.reader``: two chunks of 16 MiB, and their pages."""
LEAST = 4  # the rates below are estimates, and a few items cost little
MOST = 256  # greenlets; what more of them would save is nothing beside one pass
# operations a second in half precision, rough and rather high: then the group is large enough
OF_A_CORE = 1.5e11
OF_A_CARD = 1e14
# bytes a second that weights arrive with, rather low
FROM_DISK = 1e9


def group_size(need: Need, limits: Limits, room: int) -> int:
    """The smallest group that hides the transfer behind the compute, as far as ``room`` (bytes) goes.

    A weight takes two operations a token, whatever its size, and its bytes take their time: so it is tokens
    in flight that hide a transfer. Where there is but one pass, as in a text encoder, all items share it.
    """
    speed = OF_A_CORE * core_count() if limits.on_cpu else OF_A_CARD
    itemsize = 4 if need.dtype == "float32" else 2
    tokens = speed / FROM_DISK * itemsize / 2
    wanted = max(LEAST, ceil(tokens / need.item.tokens)) if need.item.tokens else MOST
    if need.item.passes == 1:
        wanted = MOST
    fitting = 1 + room // need.suspended if need.suspended else MOST
    return max(1, min(wanted, fitting, need.items, MOST))
