"""A simulated accelerator for PyTorch: import this, then ``torch.device("sim")``; see README.md beside it."""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIBRARY = Path(__file__).parent / "_C.so"
if not _LIBRARY.exists():
    raise ImportError(f"{_LIBRARY} is not built: python {Path(__file__).parents[1] / 'build.py'}")
_spec = importlib.util.spec_from_file_location("torch_sim._C", _LIBRARY)
if _spec is None or _spec.loader is None:
    raise ImportError(f"{_LIBRARY} cannot be loaded")
_C = importlib.util.module_from_spec(_spec)
sys.modules["torch_sim._C"] = _C
_spec.loader.exec_module(_C)

from torch_sim.device import register  # noqa: E402 - it needs the library

POLICIES = ("eager", "late-copies", "late-compute", "late", "random")
VIOLATED = 86
"""Exit status of a process in which a violation was seen, with ``SIM_CHECK=1``."""

register()
torch.sim = torch.get_device_module("sim")  # type: ignore[attr-defined]

set_policy = _C.set_policy
"""``set_policy(name, seed)``: how late streams run from now on."""
take_violations = _C.take_violations
"""The violations seen since it was last called, as sentences."""
set_detecting, fail, host_waits = _C.set_detecting, _C.fail, _C.host_waits
is_touched, pinned, limit_pinned = _C.is_touched, _C.pinned, _C.limit_pinned


@contextmanager
def running(policy: str, seed: int = 0) -> Iterator[None]:
    """Run streams by a policy: eager, late-copies, late-compute, late or random."""
    set_policy(policy, seed)
    try:
        yield
    finally:
        set_policy("eager", 0)


def _is_used_here() -> bool:
    """Whether this very process has used a device, and not the one that it was forked from."""
    return torch.sim.is_initialized() and not _C.in_bad_fork()  # type: ignore[attr-defined]


def _exit_status(status: int) -> int:
    """The status that the process ends with: VIOLATED, and stderr says why, if a violation was seen."""
    _C.set_fatal(False)
    seen = []
    try:
        _C.synchronize()
    except RuntimeError as error:
        seen.append(str(error))
    seen += take_violations()
    for violation in seen:
        sys.stderr.write(f"torch_sim: {violation}\n")
    sys.stderr.flush()
    return VIOLATED if seen else status


def _check_at_exit() -> None:
    """Have the process fail at its next wait for the device, and at its end, if a violation was seen."""
    _C.set_fatal(True)
    leave = os._exit

    def leave_checked(status: int) -> NoReturn:
        leave(_exit_status(status) if _is_used_here() else status)

    os._exit = leave_checked
    # only os._exit can still change the status in an exit handler
    atexit.register(lambda: leave(VIOLATED) if _is_used_here() and _exit_status(0) else None)


set_policy(os.environ.get("SIM_POLICY") or "eager", int(os.environ.get("SIM_SEED") or 0))
if os.environ.get("SIM_CHECK") == "1":
    _check_at_exit()
