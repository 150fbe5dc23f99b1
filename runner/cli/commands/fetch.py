"""``runner fetch``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli.options import Json, Manifests, Sets
from runner.cli.output import print_error, say, say_error
from runner.errors import ExitCode, RunnerError

if TYPE_CHECKING:
    from runner.model.sources import Model
    from runner.pipeline.binding import Pipeline


def fetch(
    manifests: Manifests,
    sets: Sets = None,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Look up the branches' latest commits, and download what is new."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Download the models that manifests need and this machine does not have, so that no run waits for them.

    Example: runner fetch 'night/*.toml' --refresh
    """
    from runner.cli.pipelines import open_pipeline
    from runner.cli.several_manifests import expand

    paths = expand(manifests)
    codes: list[int] = []
    for manifest in paths:
        try:
            _fetch(open_pipeline(manifest, sets or []), refresh=refresh, as_json=as_json)
            codes.append(ExitCode.DONE)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on from there")
            raise
        except RunnerError as error:  # the models of the other manifests are still fetched
            if len(paths) == 1:
                raise
            say_error(error)
            codes.append(error.exit_code)
            if as_json:
                print_error(error)
    return max(codes)


def _fetch(pipeline: Pipeline, *, refresh: bool, as_json: bool) -> None:
    from runner.cli.display import display_of
    from runner.cli.options import RUNS
    from runner.cli.running import print_event
    from runner.events import Fetched
    from runner.manifest.schema import LoraSource, PartSource
    from runner.rundir.journal import Events, present
    from runner.supervisor.event_publisher import EventPublisher
    from runner.work.fetching import fetch_missing
    from runner.work.models import resolve_models
    from runner.work.work import run_directory

    events = Events()
    display = display_of(pipeline)
    events.listeners.append(display.take)
    if as_json:
        events.listeners.append(print_event)
    publisher = EventPublisher(pipeline, run_directory(pipeline, RUNS), events)
    before = resolve_models(pipeline)
    with display:
        after = fetch_missing(before, publisher, refresh=refresh)
    for source, model in after.models.items():
        if model is None:
            continue
        old = before.models[source]
        if as_json:
            fetched = Fetched(
                source=source.source,
                revision=source.revision,
                variant=source.variant,
                component=source.component if isinstance(source, PartSource) else None,
                file=source.file if isinstance(source, LoraSource) else None,
                commit=model.commit,
                before=old.commit if old else None,
                folder=str(model.folder),
                time=present(),
            )
            print_event(fetched)
        else:
            say(_line(model, old))


def _line(model: Model, old: Model | None) -> str:
    """What happened to a model; ``old`` is the one that was on this machine before."""
    from runner.model.hub.errors import title

    if model.commit is None:
        return f"{title(model.source)}: in {model.folder}, nothing to fetch"
    if old is None:
        result = "fetched"
    elif old.commit != model.commit:
        result = f"moved, fetched (it was at {old.commit})"
    else:
        result = "is here"
    return f"{title(model.source)}: commit {model.commit}, {result}"
