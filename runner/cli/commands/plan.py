"""``runner plan``."""

from __future__ import annotations

import typer

from runner.cli.options import RUNS, Fresh, Json, Manifest, Prompts, RunsDir, Sets


def plan(
    context: typer.Context,
    manifest: Manifest,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Show the stages, what each loads, and what there is to do and why. Writes nothing.

    Example: runner plan flux.toml --set budget.device=cuda
    """
    from runner.cli.plan_report import PlanRequest, show_plan

    return show_plan(manifest, PlanRequest(sets or [], prompts or [], fresh, runs_dir, as_json, context.obj))
