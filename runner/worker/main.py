"""A worker from its first line to its exit, however it was started."""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING

from runner.errors import ExitCode, RunnerError
from runner.events import Checked, Failed
from runner.machine.active_time import CLOCK
from runner.machine.ram import ram_of
from runner.protocol import ModelCheck, encode_event, receive
from runner.redact import redact
from runner.worker import parent_watch as lifeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event


def serve(commands: IO[bytes], events: int) -> int:
    """Do the job that arrives on ``commands``, tell ``events`` (a descriptor) of it; returns an exit code."""
    telling = threading.Lock()

    def report(event: Event) -> None:
        with telling:
            try:
                _write(events, memoryview(encode_event(event)))
            except OSError:
                os._exit(1)  # the supervisor is gone: an error here would look like the item's own

    job = receive(commands)
    if isinstance(job, ModelCheck):
        lifeline.watch(commands, lambda: os._exit(1))
        return _check(job, report)
    try:
        from runner.worker.loop import Loop

        loop = Loop(job, report)
        lifeline.watch(commands, loop.stop)
        loop.run()
    except RunnerError as error:
        report(Failed(code=error.exit_code, error=str(error)))
        return error.exit_code
    except BaseException as error:
        sys.stderr.write(redact(traceback.format_exc()))
        from runner.worker.allocator import is_out_of_memory, vram_peak

        if is_out_of_memory(error):
            vram, ram = vram_peak(job.device), ram_of(os.getpid())
            message = f"out of memory: {error}"
            report(Failed(code=ExitCode.BUDGET, out_of_memory=True, error=message, vram=vram, ram=ram))
            return ExitCode.BUDGET
        report(Failed(code=ExitCode.STAGE, error=f"{type(error).__name__}: {error}"))
        return ExitCode.STAGE
    return ExitCode.DONE


def _check(request: ModelCheck, report: Callable[[Event], None]) -> int:
    """Look at components, one by one."""
    from runner.worker.check import problem_of

    for check in request.checks:
        report(Checked(problem=problem_of(check)))
    return ExitCode.DONE


def _write(events: int, line: memoryview) -> None:
    """Write it all. While nobody reads, for the supervisor is suspended, no time passes for the items."""
    while line:
        pipe = select.poll()
        pipe.register(events, select.POLLOUT)
        if not pipe.poll(0):
            CLOCK.hold(True)
            pipe.poll()
            CLOCK.hold(False)
        line = line[os.write(events, line) :]
