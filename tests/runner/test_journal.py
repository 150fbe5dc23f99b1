"""The journal: a line an event, only added to, torn lines passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.journal import Events, Journal, read_journal

if TYPE_CHECKING:
    from pathlib import Path


def test_events_are_kept_and_progress_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events, journal = Events(), Journal(path)
    events.listeners.append(journal)
    events.emit("run_started", run="x")
    events.emit("progress", step=1)
    events.emit("memory", ram=1)
    events.emit("run_finished", exit_code=0)
    journal.close()
    kept = list(read_journal(path))
    assert [(e["event"], e["version"]) for e in kept] == [("run_started", 1), ("run_finished", 1)]
    assert all(e["time"].endswith("Z") for e in kept)


def test_a_torn_last_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "one"}\n{"event": "to')
    journal = Journal(path)
    journal({"event": "two"})
    journal.close()
    assert [e["event"] for e in read_journal(path)] == ["one", "two"]
