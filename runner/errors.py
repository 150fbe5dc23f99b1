"""Errors for users: each has an exit code and a message that says what to do."""

from __future__ import annotations

from enum import IntEnum

from runner.redact import redact


class ExitCode(IntEnum):
    """The exit codes of every command, grouped by cause."""

    DONE = 0
    ITEMS_FAILED = 1
    USAGE = 2
    MANIFEST = 3
    PLUGIN = 4
    BUDGET = 5
    LOCKED = 6
    STAGE = 7
    MODEL = 8
    STORAGE = 9
    BUG = 70
    INTERRUPTED = 130


EXIT_MEANINGS: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.ITEMS_FAILED: "some items failed, the others are done",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.MANIFEST: "the manifest, or a file of items, is wrong",
    ExitCode.PLUGIN: "a plugin is absent or broken",
    ExitCode.BUDGET: "does not fit the budget or the machine, or went over",
    ExitCode.LOCKED: "another run holds the run directory",
    ExitCode.STAGE: "a stage crashed or timed out",
    ExitCode.MODEL: "a model source is missing, gated or corrupt",
    ExitCode.STORAGE: "storage is full or failing",
    ExitCode.BUG: "a bug of runner's own, with a traceback",
    ExitCode.INTERRUPTED: "interrupted; the same command goes on from there",
}


class RunnerError(Exception):
    """Base of all errors that users can fix: printed as a message, without a traceback."""

    exit_code: ExitCode = ExitCode.BUG
    prefix = "error: "

    def __str__(self) -> str:
        """The message with secrets hidden: it may quote a server, a library or a worker."""
        return redact(super().__str__())


class UsageError(RunnerError):
    exit_code = ExitCode.USAGE


class PluginError(RunnerError):
    exit_code = ExitCode.PLUGIN


class BudgetError(RunnerError):
    exit_code = ExitCode.BUDGET


class OutOfMemoryError(BudgetError):
    """A worker ran out of memory, or was killed because it exceeded its limit."""


class LockedError(RunnerError):
    exit_code = ExitCode.LOCKED


class StageError(RunnerError):
    exit_code = ExitCode.STAGE


class CannotForkError(StageError):
    """A forked worker cannot use its device; a spawned one can."""


class WorkerDiedError(StageError):
    """A worker crashed, hung or was killed; its items are retried in a new worker."""


class ItemFailedError(RunnerError):
    """An item failed in a run that stops at the first failure."""

    exit_code = ExitCode.ITEMS_FAILED


class ModelError(RunnerError):
    exit_code = ExitCode.MODEL


class StorageError(RunnerError):
    exit_code = ExitCode.STORAGE


class InterruptedRunError(RunnerError):
    exit_code = ExitCode.INTERRUPTED


def in_words(error: BaseException) -> str:
    """Class and message of any exception, even if its ``__str__`` raises."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def error_of(code: int, message: str) -> RunnerError:
    """The error for an exit code that another process sent; a StageError for an unknown code."""
    for kind in RunnerError.__subclasses__():
        if kind.exit_code == code:
            return kind(message)
    return StageError(message)
