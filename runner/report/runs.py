"""A run's history as JSON for the page's script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.errors import EXIT_MEANINGS

if TYPE_CHECKING:
    from datetime import datetime

    from runner.events import OutOfMemory
    from runner.rundir.history import RunHistory
    from runner.rundir.node_history import NodeHistory
    from runner.rundir.stage_history import StageHistory
    from runner.rundir.warnings import WarningGroup

NEITHER: dict[str, int | None] = {"vram": None, "ram": None}


def as_json(run: RunHistory, *, going: bool) -> dict[str, Any]:
    """A run as the page shows it; ``going``: it has not ended."""
    counts = run.counts
    lasted = run.seconds if run.seconds is not None else _seconds(run.started, run.latest)
    return {
        "manifest": run.manifest,
        "started": run.started.isoformat() if run.started else None,
        "seconds": lasted,
        "exit_code": run.exit_code,
        "state": _state(run, going=going),
        "error": run.error,
        "items": run.items,
        "made": counts.made,
        "failed": counts.failed,
        "cached": counts.cached,
        "stage_names": run.stage_names,
        "stages": [_stage(run, stage) for stage in run.stages.values()],
        "machine": run.machine,
        "versions": run.versions,
        "loras": run.loras,
        "warnings": [_warnings(group) for group in run.warnings],
        "nodes": [_node(run, node) for node in run.nodes.all.values()],
    }


def _node(run: RunHistory, node: NodeHistory) -> dict[str, Any]:
    shares = [
        {
            "stage": name,
            "done": share.done,
            "failed": share.failed,
            "offset": _seconds(run.started, share.begun),
            "seconds": _seconds(share.begun, share.ended),
        }
        for name, share in node.shares.items()
    ]
    about = {name: getattr(node, name) for name in ("name", "host", "device", "state", "reason")}
    return {
        **about,
        "done": node.done,
        "failed": node.failed,
        "busy": round(node.seconds, 3),
        "shares": shares,
    }


def _warnings(group: WarningGroup) -> dict[str, Any]:
    first = [{"item": event.item, "message": event.message} for event in group.first]
    return {"stage": group.stage, "kind": group.name, "count": group.count, "first": first}


def _state(run: RunHistory, *, going: bool) -> str:
    if run.exit_code is None:
        return "running" if going else "not ended"
    meaning = next((text for code, text in EXIT_MEANINGS.items() if code == run.exit_code), "ended")
    return meaning.partition(";")[0]


def _stage(run: RunHistory, stage: StageHistory) -> dict[str, Any]:
    lasted = stage.seconds if stage.seconds is not None else _seconds(stage.started, run.latest)
    points = stage.memory
    return {
        "name": stage.name,
        "placement": stage.placement,
        "dtype": stage.dtype,
        "device": stage.device,
        "offset": _seconds(run.started, stage.started),
        "seconds": lasted,
        "items": stage.items,
        "distinct": stage.distinct,
        "each": stage.seconds_an_item,
        "done": stage.done,
        "failed": stage.failed,
        "cached": stage.cached,
        "predicted": NEITHER | stage.predicted,
        "measured": NEITHER | (stage.measured or {"ram": max((held for _, held in points), default=None)}),
        "budget": NEITHER | stage.budget,
        "memory": points,
        "streamed": stage.streamed,
        "lowered": [_fall(stage, fall) for fall in stage.lowered],
    }


def _fall(stage: StageHistory, fall: OutOfMemory) -> dict[str, Any]:
    return {
        "placement": fall.placement,
        "next": fall.next,
        "measured": fall.measured,
        "offset": _seconds(stage.started, fall.time),
    }


def _seconds(begin: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - begin).total_seconds()) if begin and end else 0.0
