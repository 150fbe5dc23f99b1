"""Where every error ends: a message, an exit code, and JSON for a program that asked for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NoReturn

import pytest

from runner import cli
from runner.errors import ExitCode, ModelError, RunnerError, UsageError
from runner.manifest.problems import ManifestError, Position, Problem

TOKEN = "hf_" + "aB3" * 11


End = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> End:
    """How the command ends when what it runs raises: exit code, stdout and stderr."""

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    def end(error: BaseException, *arguments: str) -> tuple[int, str, str]:
        def app(**_: object) -> NoReturn:
            raise error

        monkeypatch.setattr("runner.cli.app.app", app)
        monkeypatch.setattr("os._exit", leave)
        with pytest.raises(SystemExit) as stop:
            cli.main(list(arguments))
        printed = capsys.readouterr()
        return int(stop.value.code or 0), printed.out, printed.err

    return end


def test_a_users_error_is_a_message_and_its_exit_code(ended: End) -> None:
    for error, code in (
        (ModelError("no model"), 8),
        (UsageError("no such thing"), 2),
        (RunnerError("x"), 70),
    ):
        result = ended(error, "plan", "x.toml")
        assert result == (code, "", f"error: {error}\n")


def test_as_json_it_is_an_object_too(ended: End) -> None:
    code, stdout, stderr = ended(ModelError("no model"), "plan", "x.toml", "--json")
    assert (code, stderr) == (8, "error: no model\n")
    assert json.loads(stdout) == {"ok": False, "exit_code": 8, "error": "no model", "problems": []}
    problem = Problem(Position("x.toml", 1, 2), "wrong")
    code, stdout, _ = ended(ManifestError([problem]), "validate", "x.toml", "--json")
    assert code == 3
    assert json.loads(stdout)["problems"] == [problem.as_dict()]
    # a run has events for that
    assert ended(ModelError("no model"), "run", "x.toml", "--json")[1] == ""


def test_a_bug_is_exit_70_with_a_traceback_without_secrets(ended: End) -> None:
    code, stdout, stderr = ended(KeyError(TOKEN), "plan", "x.toml")
    assert (code, stdout) == (ExitCode.BUG, "")
    assert "Traceback" in stderr
    assert "This is a bug of runner's own" in stderr
    assert TOKEN not in stderr


def test_an_interruption_is_exit_130(ended: End) -> None:
    assert ended(KeyboardInterrupt(), "plan", "x.toml")[0] == ExitCode.INTERRUPTED
