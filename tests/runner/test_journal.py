"""The journal: a line an event, only added to, torn lines passed over."""

from __future__ import annotations

import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from runner.errors import StorageError
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


def test_lines_that_no_journal_writes_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    odd = [b"\0" * 4096, b"[" * 100_000, b"9" * 5000, b"\xff\xfe", b"[]", b'"event"', b'{"event": NaN']
    path.write_bytes(b'{"event": "one"}\n' + b"\n".join(odd))
    journal = Journal(path)
    journal({"event": "two"})
    journal.close()
    assert [e["event"] for e in read_journal(path)] == ["one", "two"]


def test_a_line_that_a_full_disk_tore_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal({"event": "one"})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, limits[1]))
        with pytest.raises(StorageError, match="cannot write"):
            journal({"event": "two"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    journal({"event": "three"})
    journal.close()
    assert [e["event"] for e in read_journal(path)] == ["one", "three"]
    assert path.read_bytes().count(b"\n") == 3


def test_no_secret_is_told(tmp_path: Path) -> None:
    events, journal = Events(), Journal(tmp_path / "journal.jsonl")
    events.listeners.append(journal)
    events.emit("item_finished", error="401: token hf_" + "a1B2" * 8, outputs=["https://me:pw@host/x"])
    journal.close()
    (kept,) = read_journal(tmp_path / "journal.jsonl")
    assert (kept["error"], kept["outputs"]) == ("401: token ***", ["https://***@host/x"])


def test_every_listener_hears_every_event_with_its_time() -> None:
    events, heard = Events(), [[], []]  # type: tuple[Events, list[list[dict[str, object]]]]
    events.listeners += [heard[0].append, heard[1].append]
    events.emit("one", n=1)
    assert heard[0] == heard[1]
    assert heard[0][0]["n"] == 1
    assert str(heard[0][0]["time"]).endswith("Z")


def test_a_journal_is_read_as_far_as_it_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = b'{"event": "one"}\n'
    path.write_bytes(first + b'{"event": "two"}\n')
    assert [e["event"] for e in read_journal(path, len(first))] == ["one"]
    assert [e["event"] for e in read_journal(path, len(first) + 1)] == ["one", "two"]


def test_a_line_that_is_taken_in_pieces_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    journal = Journal(tmp_path / "journal.jsonl")
    journal({"event": "one", "error": "x" * 100})
    journal({"event": "two"})
    journal.close()
    assert [e["event"] for e in read_journal(tmp_path / "journal.jsonl")] == ["one", "two"]
