"""``runner run``."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from runner.cli.options import RUNS, Executor, Fresh, Json, Manifests, Prompts, RunsDir, Sets


def run(
    context: typer.Context,
    manifests: Manifests,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    executor: Executor = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run uses the run directory.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only the items that failed when they last ran.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first item that fails.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make the outputs of manifests that do not exist yet. The same command continues a run that was stopped.

    Example: runner run demo.toml --set stage.diffuse.with.steps=8
    """
    from runner.cli.plan_report import PlanRequest, show_plan
    from runner.cli.running import RunRequest, end_event_on_error, run_manifest
    from runner.cli.several_manifests import expand, plan_several, run_several
    from runner.supervisor.run import RunOptions

    with nullcontext() if dry_run else end_event_on_error(as_json=as_json):
        paths = expand(manifests)
    if dry_run:
        planned = PlanRequest(sets or [], prompts or [], fresh, runs_dir, as_json, context.obj, executor)
        if len(paths) == 1:
            return show_plan(paths[0], planned)
        return plan_several(paths, lambda path: show_plan(path, planned))
    options = RunOptions(fresh, wait, retry_failed, fail_fast)
    request = RunRequest(sets or [], prompts or [], runs_dir, as_json, options, executor)
    return run_several(paths, request) if len(paths) > 1 else run_manifest(paths[0], request)
