"""The journal: a line an event, only added to, torn lines passed over."""

from __future__ import annotations

import json
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from runner.errors import StorageError
from runner.events import Event, FetchProgress, Memory, Progress, RunFinished, Waiting, Warned, encode
from runner.rundir.journal import Events, Journal, read_journal

if TYPE_CHECKING:
    from pathlib import Path


ONE = '{"event": "waiting", "reason": "one"}'


def test_events_are_kept_and_progress_is_not(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    events, journal = Events(), Journal(path)
    events.listeners.append(journal)
    events.emit(Waiting(reason="x"))
    events.emit(Progress(stage="fetch", item="x", step=1, steps=2))
    events.emit(FetchProgress(source="x", done=1, total=2))
    events.emit(Memory(stage="x", ram=1))
    events.emit(RunFinished(exit_code=0, outputs=[], seconds=1.0))
    journal.close()
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(e["event"], e["version"]) for e in kept] == [("waiting", 1), ("run_finished", 1)]
    assert all(e["time"].endswith("Z") for e in kept)
    assert [type(e) for e in read_journal(path)] == [Waiting, RunFinished]


def test_a_torn_last_line_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(f'{ONE}\n{{"event": "to')
    journal = Journal(path)
    journal(Waiting(reason="two"))
    journal.close()
    assert list(read_journal(path)) == [Waiting(reason="one"), Waiting(reason="two")]


def test_lines_that_no_journal_writes_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    odd = [b"\0" * 4096, b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"[]", b'"event"', b'{"event": NaN']
    path.write_bytes(ONE.encode() + b"\n" + b"\n".join(odd))
    journal = Journal(path)
    journal(Waiting(reason="two"))
    journal.close()
    assert list(read_journal(path)) == [Waiting(reason="one"), Waiting(reason="two")]


def test_a_line_that_a_full_disk_tore_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal(Waiting(reason="one"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
        with pytest.raises(StorageError, match="cannot write"):
            journal(Waiting(reason="two"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    journal(Waiting(reason="three"))
    journal.close()
    assert list(read_journal(path)) == [Waiting(reason="one"), Waiting(reason="three")]
    assert path.read_bytes().count(b"\n") == 3


def test_no_secret_is_reported(tmp_path: Path) -> None:
    events, journal = Events(), Journal(tmp_path / "journal.jsonl")
    events.listeners.append(journal)
    error = "401: token hf_" + "a1B2" * 8
    events.emit(RunFinished(exit_code=8, outputs=["https://me:pw@host/x"], seconds=1.0, error=error))
    events.emit(Warned(kind="x", message="y", details={"url": ["https://me:pw@host/x"]}))
    journal.close()
    end, warned = read_journal(tmp_path / "journal.jsonl")
    assert isinstance(end, RunFinished)
    assert isinstance(warned, Warned)
    assert (end.error, end.outputs) == ("401: token ***", ["https://***@host/x"])
    assert warned.details == {"url": ["https://***@host/x"]}


def test_every_listener_hears_every_event_with_its_time() -> None:
    events = Events()
    heard: tuple[list[Event], list[Event]] = ([], [])
    events.listeners += [heard[0].append, heard[1].append]
    events.emit(Waiting(reason="x"))
    assert heard[0] == heard[1]
    assert isinstance(heard[0][0], Waiting)
    assert encode(heard[0][0])["time"].endswith("Z")


def test_a_journal_is_read_as_far_as_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = [json.dumps(encode(Waiting(reason=reason))).encode() + b"\n" for reason in ("one", "two")]
    path.write_bytes(b"".join(lines))
    assert reasons(path, len(lines[0])) == ["one"]
    assert reasons(path, len(lines[0]) + 1) == ["one", "two"]


def test_a_line_that_is_taken_in_pieces_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    journal = Journal(tmp_path / "journal.jsonl")
    journal(Waiting(reason="x" * 100))
    journal(Waiting(reason="two"))
    journal.close()
    assert reasons(tmp_path / "journal.jsonl") == ["x" * 100, "two"]


def reasons(journal: Path, until: int | None = None) -> list[str]:
    return [event.reason for event in read_journal(journal, until) if isinstance(event, Waiting)]
