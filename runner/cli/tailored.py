"""What ``new`` and ``port`` have in common: showing changes and plans, and refusing to overwrite files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from runner.plan.stage_plan import StagePlan
    from runner.tailor.changes import Change


def refuse_overwriting(out: Path | None, *, force: bool) -> None:
    """Check an output file before any work is done.

    Raises:
        UsageError: it exists and ``force`` is not given, or it is a folder.

    """
    if out is not None and out.is_dir():
        raise UsageError(f"-o {out}: that is a folder; name a file")
    if out is not None and out.exists() and not force:
        raise UsageError(f"{out} is there already; --force overwrites it")


def change_line(change: Change) -> str:
    """``stage.decode.with.tiling: auto -> 512 (seams between tiles are blended)``."""
    old = "not set" if change.old is None else change.old
    new = "taken out" if change.new is None else change.new
    return f"{change.key}: {old} -> {new}" + (f" ({change.cost})" if change.cost else "")


def change_as_json(change: Change) -> dict[str, Any]:
    return {
        "key": change.key,
        "stage": change.stage or None,
        "from": change.old,
        "to": change.new,
        "cost": change.cost or None,
    }


def moved(plan: StagePlan) -> int:
    """Bytes of weights that are copied to the device in one pass through the stage's components."""
    return sum(placed.moved for placed in plan.chosen.components)


def stage_as_json(plan: StagePlan) -> dict[str, Any]:
    return {
        "stage": plan.stage.name,
        "placement": plan.chosen.placement,
        "predicted": plan.chosen.predicted,
        "moved": moved(plan),
    }
