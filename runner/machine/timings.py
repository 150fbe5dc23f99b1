"""Timings of stages on this host: each run adds its measurements, and plans estimate times from them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from runner.machine.rates import device_key, entries, is_rate, keep

RUNS_KEPT = 15
"""The median of these counts, so that one run on a busy machine changes little."""


@dataclass(frozen=True)
class Measured:
    """The median of the last runs."""

    seconds: float
    runs: int


def timing_key(device: str, threads: int, uses: str, dtype: str, what: str) -> str:
    """The key of a timing; ``what`` is measured, such as "seconds by operation"."""
    cores = f"{threads} threads" if device == "cpu" else "card"
    return "|".join((device_key(device), cores, uses, dtype, what))


def measured(key: str) -> Measured | None:
    """The timing that runs here have measured; None if none has."""
    found = _kept(key)
    return Measured(median(found), len(found)) if found else None


def add_measured(key: str, seconds: float) -> None:
    """Add a run's measurement, and remove the oldest beyond `RUNS_KEPT`."""
    if is_rate(seconds):
        keep(key, [*_kept(key), seconds][-RUNS_KEPT:])


def _kept(key: str) -> list[float]:
    found = entries().get(key)
    return [value for value in found if is_rate(value)] if isinstance(found, list) else []
