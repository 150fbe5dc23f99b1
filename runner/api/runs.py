"""The arguments of the lifecycle hooks: a run, and the results of its items and stages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Run:
    """A run; ``items`` is their number."""

    name: str
    directory: Path
    manifest: Path
    stages: Sequence[str]
    items: int


@dataclass(frozen=True)
class ItemResult:
    """The result of one item at one stage; ``status`` is ``"done"`` or ``"failed"``."""

    stage: str
    item: str
    key: str
    status: str
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class StageResult:
    """The result of a stage: numbers of items, and peak memory.

    ``predicted`` and ``measured`` are in bytes, by ``"vram"`` and ``"ram"``. For streamed weights,
    ``streamed`` has the bytes that were ``"read"`` and the seconds that computation ``"waited"`` for them.
    """

    stage: str
    seconds: float
    done: int
    cached: int
    failed: int
    predicted: Mapping[str, int | None] = field(default_factory=dict)
    measured: Mapping[str, int | None] = field(default_factory=dict)
    streamed: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Summary:
    """The result of a run."""

    exit_code: int
    outputs: Sequence[Path]
    seconds: float
