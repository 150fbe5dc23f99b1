"""Commands that take a manifest: run it, or say what that would do."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Optional

import typer

from runner.cli import completion
from runner.cli.options import RUNS, Fresh, Json, Manifest, Manifests, Prompts, RunsDir, Sets
from runner.cli.typer_app import App

commands = App()


@commands.command()
def run(
    manifests: Manifests,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and write nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait while another run holds the run directory.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only what failed the last time.")
    ] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Stop at the first item that fails.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Make what the manifest asks for and is not there yet; run it again and it goes on where it was.

    Example: runner run demo.toml --set stage.diffuse.with.steps=8
    """
    from runner.cli.common import Options

    options = Options(sets or [], prompts or [], fresh, runs_dir, as_json, wait, retry_failed, fail_fast)
    from runner.cli import run_several as several
    from runner.cli.run import always_finished

    with nullcontext() if dry_run else always_finished(options):
        found = several.expand(manifests)
    if dry_run:
        from runner.cli.plan import plan as show

        if len(found) == 1:
            return show(found[0], options)
        return several.plan_several(found, lambda manifest: show(manifest, options))
    if len(found) > 1:
        return several.run_several(found, options)
    from runner.cli.run import run as run_one

    return run_one(found[0], options)


@commands.command()
def fetch(
    manifests: Manifests,
    sets: Sets = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Ask where branches stand now, and fetch what is new there."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Download what manifests need from the hub and is not here yet, so that no run has to wait for it.

    Example: runner fetch 'night/*.toml' --refresh
    """
    from runner.cli.common import Options
    from runner.cli.fetch import fetch as download
    from runner.cli.run_several import expand

    return download(expand(manifests), Options(sets or [], as_json=as_json), refresh=refresh)


@commands.command()
def plan(
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
    from runner.cli.common import Options
    from runner.cli.plan import plan as show

    return show(manifest, Options(sets or [], prompts or [], fresh, runs_dir, as_json))


@commands.command()
def explain(
    manifest: Manifest,
    item: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--item", metavar="ID", help="Only this item.", autocompletion=completion.items),
    ] = None,
    stage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--stage", metavar="STAGE", help="Only this stage.", autocompletion=completion.stages),
    ] = None,
    sets: Sets = None,
    prompts: Prompts = None,
    fresh: Fresh = None,
    runs_dir: RunsDir = RUNS,
    as_json: Json = False,
) -> int:
    """Say for each item and stage why it would run or not, and what changed since. Writes nothing.

    Example: runner explain demo.toml --set stage.diffuse.with.steps=28
    """
    from runner.cli.common import Options
    from runner.cli.explain import explain as show

    options = Options(sets or [], prompts or [], fresh, runs_dir, as_json)
    return show(manifest, options, item, stage)


@commands.command()
def validate(manifest: Manifest, sets: Sets = None, prompts: Prompts = None, as_json: Json = False) -> int:
    """Check a manifest, its items and its model folders without running anything.

    Example: runner validate demo.toml
    """
    from runner.cli.common import Options
    from runner.cli.validate import validate as check

    return check(manifest, Options(sets or [], prompts or [], as_json=as_json))
