"""The worker's main function, whether it was forked or spawned."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import traceback
from typing import IO, TYPE_CHECKING

from runner.errors import ExitCode, RunnerError
from runner.events import Failed, Ready
from runner.machine.active_time import CLOCK
from runner.plugins import collection_paused, load_object
from runner.protocol import Measuring, ModelCheck, Prepare, encode_event, receive
from runner.redact import redact
from runner.worker import parent_watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.events import Event


def serve(commands: IO[bytes], events: int, *, forked: bool = False) -> int:
    """Run the request from ``commands``, write events to the descriptor ``events``; returns an exit code.

    ``forked``: the process is a fork, so that an accelerator may refuse it.
    """
    lock = threading.Lock()

    def report(event: Event) -> None:
        with lock:
            try:
                _write(events, memoryview(encode_event(event)))
            except OSError:
                os._exit(1)  # the supervisor has ended; an exception would become the item's failure

    job = receive(commands)
    if isinstance(job, ModelCheck):
        parent_watch.watch(commands, lambda: os._exit(1))
        return _check(job, report)
    if isinstance(job, Measuring):
        parent_watch.watch(commands, lambda: os._exit(1))
        return _measure(job, report)
    try:
        if isinstance(job, Prepare):
            parent_watch.watch(commands, lambda: os._exit(1))
            from runner.worker.prepare import prepare_component

            prepare_component(job.preparation, report, job.files)
            return ExitCode.DONE
        with collection_paused():
            from runner.worker.loop import Loop  # imports torch

        if forked and not _can_use(job.device):
            report(Failed(code=ExitCode.STAGE, error=f"a fork cannot use {job.device}", cannot_fork=True))
            return ExitCode.STAGE
        loop = Loop(job, report)
        parent_watch.watch(commands, loop.stop, loop.feed)
        loop.run()
    except RunnerError as error:
        report(Failed(code=error.exit_code, error=str(error)))
        return error.exit_code
    except BaseException as error:
        sys.stderr.write(redact(traceback.format_exc()))
        from runner.accelerator.backends import DeviceLostError, is_out_of_memory
        from runner.worker.memory_held import memory_held

        if is_out_of_memory(error):
            message, held = f"out of memory: {error}", memory_held(getattr(job, "device", "cpu"))
            report(Failed(code=ExitCode.BUDGET, out_of_memory=True, error=message, **held))
            return ExitCode.BUDGET
        if isinstance(error, DeviceLostError):
            report(Failed(code=ExitCode.STAGE, device_lost=True, error=str(error)))
            return ExitCode.STAGE
        report(Failed(code=ExitCode.STAGE, error=f"{type(error).__name__}: {error}"))
        return ExitCode.STAGE
    return ExitCode.DONE


def _can_use(device: str) -> bool:
    """Whether this process, a fork, can use the device; other errors are left to the loop."""
    from runner.accelerator.backends import backend_of

    return backend_of(device).survives_fork()


def _check(request: ModelCheck, report: Callable[[Event], None]) -> int:
    """Check components and adapters one by one."""
    with collection_paused():
        from runner.worker.check import result_of  # imports torch

    for check in request.checks:
        report(result_of(check))
    return ExitCode.DONE


def _measure(request: Measuring, report: Callable[[Event], None]) -> int:
    """Measure activations one by one."""
    with collection_paused():
        from runner.worker.measuring import measure

        for function in dict.fromkeys(one.measure.function for one in request.measurements):
            with contextlib.suppress(Exception):  # it is reported when it is called
                load_object(function)
    report(Ready())
    for one in request.measurements:
        report(measure(one))
    return ExitCode.DONE


def _write(events: int, line: memoryview) -> None:
    """Write a whole line. Timers are paused while the pipe is full, as the supervisor may be suspended."""
    while line:
        pipe = select.poll()
        pipe.register(events, select.POLLOUT)
        if not pipe.poll(0):
            CLOCK.hold(True)
            pipe.poll()
            CLOCK.hold(False)
        line = line[os.write(events, line) :]
