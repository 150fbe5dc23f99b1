"""A worker from its first line to its exit, however it was started."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING, Any

from runner.errors import ExitCode, RunnerError
from runner.memory.meter import ram_of
from runner.protocol import ModelCheck, encode_event, receive
from runner.redact import redact
from runner.worker import lifeline

if TYPE_CHECKING:
    from collections.abc import Callable


def serve(commands: IO[bytes], events: int) -> int:
    """Do the job that arrives on ``commands``, tell ``events`` (a descriptor) of it; returns an exit code."""
    telling = threading.Lock()

    def report(event: str, **fields: Any) -> None:
        line = memoryview(encode_event(event, **fields))
        with telling:
            try:
                while line:
                    line = line[os.write(events, line) :]
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
        report("failed", code=error.exit_code, error=str(error))
        return error.exit_code
    except BaseException as error:
        sys.stderr.write(redact(traceback.format_exc()))
        from runner.worker.allocator import is_out_of_memory, vram_peak

        if is_out_of_memory(error):
            held = {"vram": vram_peak(job.device), "ram": ram_of(os.getpid())}
            told = f"out of memory: {error}"
            report("failed", code=ExitCode.BUDGET, out_of_memory=True, error=told, **held)
            return ExitCode.BUDGET
        report("failed", code=ExitCode.STAGE, error=f"{type(error).__name__}: {error}")
        return ExitCode.STAGE
    return ExitCode.DONE


def _check(request: ModelCheck, report: Callable[..., None]) -> int:
    """Look at components, one by one."""
    from runner.worker.check import problem_of

    for check in request.checks:
        report("checked", problem=problem_of(check))
    return ExitCode.DONE
