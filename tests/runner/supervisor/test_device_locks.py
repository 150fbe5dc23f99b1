"""Cards that runs share: each stage has its card for itself, and gives it back."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

import pytest

from runner.rundir.lock import Lock, held_by
from runner.supervisor import device_locks
from runner.supervisor.device_locks import DeviceLocks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the locks of a machine with no accelerator lie."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device_locks, "accelerators", list)
    return tmp_path


def test_a_card_is_held_while_a_stage_has_it(cards: Path) -> None:
    reported: list[str] = []
    with contextlib.ExitStack() as stack:
        locks = DeviceLocks(["cuda:1", "cpu", "cuda:0", "cuda:1"], stack)
        assert sorted(path.name for path in cards.iterdir()) == ["runner-cuda-0.lock", "runner-cuda-1.lock"]
        assert len(locks.descriptors) == 2
        lock = cards / "runner-cuda-1.lock"
        with locks.held("cuda:1", reported.append):
            assert held_by(lock) is not None
            assert held_by(cards / "runner-cuda-0.lock") is None
        assert held_by(lock) is None
        with pytest.raises(ValueError, match="an error"), locks.held("cuda:1", reported.append):
            raise ValueError("an error")
        assert held_by(lock) is None
        with Lock(lock) as other:
            other.acquire("cuda:1", None)
            with locks.held("cpu", reported.append):  # is everybody's
                pass
    assert reported == []


def test_locks_are_for_all_users(cards: Path) -> None:
    with contextlib.ExitStack() as stack:
        DeviceLocks(["cuda:0"], stack)
        assert (cards / "runner-cuda-0.lock").stat().st_mode & 0o777 == 0o666
