"""Seconds that stages took on this host: each run adds what it measured, and plans tell times from that."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from runner.machine.rates import device_key, entries, is_rate, keep

RUNS_KEPT = 15
"""Of these the median counts: one run on a busy machine changes little, and is forgotten."""


@dataclass(frozen=True)
class Measured:
    """What the last runs measured."""

    seconds: float
    runs: int


def timing_key(device: str, threads: int, uses: str, dtype: str, what: str) -> str:
    """By what timings are kept; ``what`` is measured, such as seconds an operation."""
    cores = f"{threads} threads" if device == "cpu" else "card"
    return "|".join((device_key(device), cores, uses, dtype, what))


def measured(key: str) -> Measured | None:
    """What runs here have measured; None if none has."""
    found = _kept(key)
    return Measured(median(found), len(found)) if found else None


def add_measured(key: str, seconds: float) -> None:
    """Add what a run has measured; the oldest is forgotten."""
    if is_rate(seconds):
        keep(key, [*_kept(key), seconds][-RUNS_KEPT:])


def _kept(key: str) -> list[float]:
    found = entries().get(key)
    return [value for value in found if is_rate(value)] if isinstance(found, list) else []
