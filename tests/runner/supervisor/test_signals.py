"""Requests to stop: counted while somebody watches, an exception otherwise, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from runner.supervisor.signals import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def hang_up() -> Iterator[None]:
    """The signal is as in a terminal: tests that are started by ``nohup`` ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watched_they_are_counted_else_raised(number: int) -> None:
    interrupts = Interrupts()
    with interrupts.caught():
        with interrupts.watched(os.getpid()):
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
        assert interrupts.count == 2
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interrupts.count == 3


def test_a_closed_terminal_is_survived() -> None:
    with Interrupts().caught():
        os.kill(os.getpid(), signal.SIGHUP)


def test_all_is_as_before_afterwards() -> None:
    before = handlers()
    interrupts = Interrupts()
    with interrupts.caught():
        assert not set(handlers()) & set(before)
    assert handlers() == before
    with pytest.raises(ValueError, match="an error"), interrupts.caught(), interrupts.watched(os.getpid()):
        raise ValueError("an error")
    assert handlers() == before
    with interrupts.caught(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_another_thread_changes_nothing() -> None:
    """Python lets the main thread alone handle signals."""
    inside: list[bool] = []
    before = handlers()

    def enter() -> None:
        with Interrupts().caught():
            inside.append(handlers() == before)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [True]
