"""Runs tests on request, each time in a fork of this process, which has imported the libraries that they use.

A request is a line of JSON on stdin: ids of tests, pytest's options, a limit in seconds, and the file for what
pytest prints. The answer is a line with pytest's exit code, ``SKIPPED`` where tests were skipped and none failed, or
a negative number where the limit was reached.
The engine and its plugins are imported in the forks alone: each finds the files as they are then.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

LIBRARIES = (
    "PIL.Image",
    "greenlet",
    "huggingface_hub",
    "numpy",
    "pluggy",
    "psutil",
    "pydantic",
    "rich.console",
    "safetensors.torch",
    "torch",
    "torch.utils._pytree",
    "typer",
)
SKIPPED = 100  # no exit code of pytest's


class Skips:
    """Whether a test was skipped: pytest's exit code is that of tests that passed."""

    found = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.found |= report.skipped and not hasattr(report, "wasxfail")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.found |= report.skipped


def main() -> None:
    sys.path[0] = str(Path.cwd())  # as `python -m pytest` has it
    for name in LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)
    answers = os.dup(1)
    for request in sys.stdin:
        child = os.fork()
        if child == 0:
            os.close(answers)
            _test(**json.loads(request))
        with suppress(PermissionError, ProcessLookupError):
            os.setpgid(child, child)  # as the child does: whoever is first
        signal.signal(signal.SIGALRM, lambda *_, group=child: os.killpg(group, signal.SIGKILL))
        signal.alarm(int(json.loads(request)["limit"]))
        _, status = os.waitpid(child, 0)
        signal.alarm(0)
        os.write(answers, b"%d\n" % os.waitstatus_to_exitcode(status))


def _test(tests: list[str], options: list[str], printed: str, limit: float) -> NoReturn:
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setpgid(0, 0)
        files = (os.open(os.devnull, os.O_RDONLY), os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
        for descriptor, file in zip((0, 1, 2), (files[0], files[1], files[1]), strict=True):
            os.dup2(file, descriptor)
        skips = Skips()
        code = pytest.main(["-q", "-rs", "-p", "no:cacheprovider", *options, *tests], plugins=[skips])
        if skips.found and code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            code = SKIPPED
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
