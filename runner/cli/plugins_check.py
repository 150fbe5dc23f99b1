"""``runner plugins check``."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.common import console, print_json, say
from runner.errors import ExitCode
from runner.manifest.load import load
from runner.plugin_check.checker import Checker, installed
from runner.plugin_check.checks import BROKEN, INTERLEAVES, NOT_RUN, OK, WARN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.plugin_check.checks import Verdict

_STYLES = {OK: "green", WARN: "yellow", BROKEN: "bold red", NOT_RUN: "dim"}
_SUMMARY = {BROKEN: "broken", WARN: "to review", NOT_RUN: "not run", OK: "ok"}


def check(names: Sequence[str], manifest: Path | None, seconds: float, *, as_json: bool) -> int:
    """Check some plugins or all; exit code 4 if anything is broken."""
    entries = installed(names)
    loaded = load(manifest) if manifest is not None else None
    with tempfile.TemporaryDirectory(prefix="runner-check-") as folder:
        checker = Checker(Path(folder), seconds, loaded, lambda description: say(f"{description} ..."))
        verdicts = list(checker.check_manifest())
        for entry in entries:
            verdicts += checker.check_plugin(entry)
    code = ExitCode.PLUGIN if any(verdict.status == BROKEN for verdict in verdicts) else ExitCode.DONE
    if as_json:
        checks = [_as_dict(verdict) for verdict in verdicts]
        print_json({"ok": code == ExitCode.DONE, "exit_code": int(code), "checks": checks})
    elif not entries:
        say("no plugin is installed; `runner plugins new NAME` writes one")
    else:
        _show(verdicts)
    return code


def _as_dict(verdict: Verdict) -> dict[str, Any]:
    return {**vars(verdict), "told": verdict.message}  # the message's name in earlier versions


def _show(verdicts: Sequence[Verdict]) -> None:
    from rich.table import Table
    from rich.text import Text

    shown = console()
    for subject in dict.fromkeys(verdict.subject for verdict in verdicts):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, min_width=len(NOT_RUN))
        table.add_column(no_wrap=True, min_width=len(INTERLEAVES))
        table.add_column(overflow="fold")
        for verdict in verdicts:
            if verdict.subject == subject:
                status = Text(verdict.status, _STYLES[verdict.status])
                table.add_row(status, verdict.check, Text(verdict.message))
                for more, style in ((verdict.advice and f"> {verdict.advice}", ""), (verdict.log, "dim")):
                    if more:
                        table.add_row("", "", Text(more, style))
        shown.print(Text(subject, "bold"))
        shown.print(table)
    counts = Counter(verdict.status for verdict in verdicts)
    shown.print("\n" + ", ".join(f"{counts[s]} {w}" for s, w in _SUMMARY.items() if counts[s]))
