"""The units that run a batch every night, as systemd itself reads them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner.errors import ExitCode

if TYPE_CHECKING:
    from project import Project

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
SERVICE = (UNITS / "runner-night.service").read_text()
COMMAND = "%h/.local/bin/runner "


def settings(name: str) -> list[str]:
    return re.findall(rf"(?m)^{name}=(.*)$", SERVICE)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
@pytest.mark.parametrize(("right", "complaint"), [("", ""), ("KillMode=mixed", "KillMode=mixd")])
def test_systemd_has_no_complaints(tmp_path: Path, right: str, complaint: str) -> None:
    command = tmp_path / ".local/bin/runner"
    command.parent.mkdir(parents=True)
    command.symlink_to("/bin/true")
    shutil.copy(UNITS / "runner-night.timer", tmp_path)
    (tmp_path / "runner-night.service").write_text(SERVICE.replace(right, complaint))
    reported = subprocess.run(
        ["systemd-analyze", "--user", "verify", "./runner-night.timer", "./runner-night.service"],
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (reported.stdout + reported.stderr == "") == (not complaint), reported.stderr
    assert complaint or reported.returncode == 0


def test_its_commands_are_those_of_runner(toy: Project) -> None:
    toy.write("manifests/night.toml", (toy.folder / "toy.toml").read_text())
    for line in (*settings("ExecStartPre"), *settings("ExecStart")):
        assert line.removeprefix("-").startswith(COMMAND)
        arguments = shlex.split(line.partition(COMMAND)[2])
        outcome = toy.invoke(*arguments, "--dry-run")
        assert outcome.code == 0, outcome


def test_its_exit_codes_are_those_of_runner() -> None:
    (codes,) = settings("SuccessExitStatus")
    assert [int(code) for code in codes.split()] == [ExitCode.ITEMS_FAILED, ExitCode.INTERRUPTED]
