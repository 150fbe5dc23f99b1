"""Output that cannot be written: exit 9 and a line where data is lost, quiet where its reader has gone."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from project import Project

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full")
COMMANDS = (
    ["plan", "toy.toml"],
    ["plan", "toy.toml", "--json"],
    ["run", "--dry-run", "toy.toml", "other.toml"],
    ["doctor", "--no-measure"],
    ["plugins", "list"],
    ["schema"],
    ["--help"],
    ["runs"],
    ["--show-completion", "bash"],
)


def all_at(project: Project, stdout: int, *, stderr: int = subprocess.PIPE) -> list[tuple[int, str]]:
    """Exit code, and what is on stderr, of each command."""

    def one(command: list[str]) -> tuple[int, str]:
        with project.start(*command, stdout=stdout, stderr=stderr) as process:
            printed = process.communicate(timeout=60)[1]
            return process.returncode, printed or ""

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, COMMANDS))


@needs_full
def test_a_full_disk_under_stdout_is_exit_9_and_one_line(toy: Project) -> None:
    toy.write("other.toml", (toy.folder / "toy.toml").read_text())
    with FULL.open("wb") as full:
        for command, (code, stderr) in zip(COMMANDS, all_at(toy, full.fileno()), strict=True):
            assert code == 9, (command, stderr)
            lines = [line for line in stderr.splitlines() if not line.startswith("==")]
            assert lines == ["error: standard output cannot be written: No space left on device"], command


def test_a_reader_that_has_gone_is_no_error(toy: Project) -> None:
    toy.write("other.toml", (toy.folder / "toy.toml").read_text())
    read, write = os.pipe()
    os.close(read)
    try:
        for command, (code, stderr) in zip(COMMANDS, all_at(toy, write), strict=True):
            assert code in (0, 2), (command, stderr)
            assert not [line for line in stderr.splitlines() if not line.startswith("==")], command
    finally:
        os.close(write)


@needs_full
def test_stderr_that_cannot_be_written_changes_no_exit_code(toy: Project) -> None:
    with FULL.open("wb") as full:
        for code, command in ((3, ["plan", "absent.toml"]), (2, ["plan"]), (0, ["validate", "toy.toml"])):
            with toy.start(*command, stderr=full) as process:
                process.communicate(timeout=60)
                assert process.returncode == code, command


@needs_full
def test_a_run_whose_events_are_lost_makes_its_outputs_and_exits_with_9(toy: Project) -> None:
    with FULL.open("wb") as full, toy.start("run", "toy.toml", "--json", stdout=full) as process:
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == 9, stderr
    assert stderr.endswith("error: standard output cannot be written: No space left on device\n")
    assert len([name for name in toy.outputs("toy") if name.endswith(".txt")]) == 2


@pytest.mark.skipif(os.name == "nt", reason="descriptors are closed with POSIX calls")
def test_a_command_started_without_stdout_says_so(toy: Project) -> None:
    with toy.start("schema", stdout=None, preexec_fn=partial(os.close, 1)) as process:
        stderr = process.communicate(timeout=60)[1]
    assert (process.returncode, stderr.count("\n")) == (9, 1), stderr


def test_characters_that_an_encoding_lacks_are_escaped(toy: Project) -> None:
    toy.environment["PYTHONIOENCODING"] = "ascii"
    outcome = toy.runner("plugins", "list")
    assert outcome.code == 0, outcome
    assert "\\xb7" in outcome.stdout
