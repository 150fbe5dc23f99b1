"""A worker from its first line to its exit, however it was started."""

from __future__ import annotations

import os
import traceback
from typing import IO, Any

from runner.errors import ExitCode, RunnerError
from runner.protocol import Job, encode_event
from runner.worker import lifeline

WORKER_ENVIRONMENT = {
    # freed memory goes back to the system: the true peak plus 12 MiB, not plus 121
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    # models were fetched by the supervisor: a worker has no business on the network
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def serve(commands: IO[bytes], events: int) -> int:
    """Do the job that arrives on ``commands``, tell ``events`` (a descriptor) of it; returns an exit code."""

    def report(event: str, **fields: Any) -> None:
        line = memoryview(encode_event(event, **fields))
        while line:
            line = line[os.write(events, line) :]

    job = Job.receive(commands)
    try:
        from runner.worker.loop import Loop

        loop = Loop(job, report)
        lifeline.watch(commands, loop.stop)
        loop.run()
    except RunnerError as error:
        report("failed", code=error.exit_code, error=str(error))
        return error.exit_code
    except BaseException as error:
        traceback.print_exc()
        report("failed", code=ExitCode.STAGE, error=f"{type(error).__name__}: {error}")
        return ExitCode.STAGE
    return ExitCode.DONE
