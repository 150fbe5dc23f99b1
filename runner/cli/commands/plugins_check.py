"""``runner plugins check``."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from runner.cli import completion
from runner.cli.options import Json
from runner.cli.output import console, print_json, say
from runner.cli.tables import CheckRow, check_table
from runner.errors import ExitCode
from runner.plugin_check.checks import BROKEN, INTERLEAVES, NOT_RUN, OK, WARN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plugin_check.checks import Verdict

_SUMMARY = {BROKEN: "broken", WARN: "to look at", NOT_RUN: "not run", OK: "ok"}


def check_plugins(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="NAME", help="The plugins; by default all of them.", autocompletion=completion.plugins
        ),
    ] = None,
    manifest: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--manifest",
            metavar="MANIFEST",
            help="Try its stages on its first two items: stages that load a model need that.",
            autocompletion=completion.manifests,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=1, help="Most time to load a plugin, and for a stage."
        ),
    ] = 120,
    as_json: Json = False,
) -> int:
    """Load plugins in a process of their own, try their stages, and show what is wrong with them.

    Without a manifest, stages are tried on synthetic parameters and inputs. Nothing is written.

    Example: runner plugins check flux --manifest demo.toml
    """
    from runner.manifest.load import load
    from runner.plugin_check.checker import Checker, installed

    entries = installed(names or [])
    loaded = load(manifest) if manifest is not None else None
    with tempfile.TemporaryDirectory(prefix="runner-check-") as folder:
        checker = Checker(Path(folder), timeout, loaded, lambda description: say(f"{description} ..."))
        verdicts = list(checker.check_manifest())
        for entry in entries:
            verdicts += checker.check_plugin(entry)
    code = ExitCode.PLUGIN if any(verdict.status == BROKEN for verdict in verdicts) else ExitCode.DONE
    if as_json:
        print_json({"ok": code == ExitCode.DONE, "exit_code": code, "checks": list(map(_as_json, verdicts))})
    elif not entries:
        say("no plugin is installed; `runner plugins new NAME` writes one")
    else:
        _show(verdicts)
    return code


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {**vars(verdict), "told": verdict.message}  # its name in earlier versions


def _show(verdicts: Sequence[Verdict]) -> None:
    from rich.text import Text

    shown = console()
    for subject in dict.fromkeys(verdict.subject for verdict in verdicts):
        rows = [
            CheckRow(verdict.status, verdict.check, verdict.message, verdict.advice, verdict.log)
            for verdict in verdicts
            if verdict.subject == subject
        ]
        shown.print(Text(subject, "bold"))
        shown.print(check_table(rows, len(INTERLEAVES)))
    counts = Counter(verdict.status for verdict in verdicts)
    shown.print("\n" + ", ".join(f"{counts[s]} {w}" for s, w in _SUMMARY.items() if counts[s]))
