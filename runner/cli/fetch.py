"""``runner fetch``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.common import Options, open_pipeline, print_json, say
from runner.cli.display import display_of
from runner.cli.run import print_event
from runner.errors import ExitCode, RunnerError
from runner.events import Fetched
from runner.model.hub_errors import title
from runner.rundir.journal import Events, present
from runner.supervisor.event_publisher import EventPublisher
from runner.work.models import assemble, fetch_missing, run_directory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from runner.model.sources import Model
    from runner.pipeline.binding import Pipeline


def fetch(manifests: Sequence[Path], options: Options, *, refresh: bool) -> int:
    """Download what manifests need; what is wrong with one keeps no other from it.

    The exit code is the largest.
    """
    codes: list[int] = []
    for manifest in manifests:
        try:
            _fetch(open_pipeline(manifest, options), options, refresh=refresh)
            codes.append(ExitCode.DONE)
        except KeyboardInterrupt:
            say("interrupted; the same command goes on from there")
            raise
        except RunnerError as error:
            if len(manifests) == 1:
                raise
            say(f"{error.prefix}{error}")
            codes.append(error.exit_code)
            if options.as_json:
                print_json({"ok": False, "exit_code": int(error.exit_code), "error": str(error)})
    return max(codes)


def _fetch(pipeline: Pipeline, options: Options, *, refresh: bool) -> None:
    events = Events()
    display = display_of(pipeline)
    events.listeners.append(display.take)
    if options.as_json:
        events.listeners.append(print_event)
    announcer = EventPublisher(pipeline, run_directory(pipeline, options.runs_dir), events)
    before = assemble(pipeline)
    with display:
        after = fetch_missing(before, announcer, refresh=refresh)
    for source, model in after.models.items():
        if model is None:
            continue
        was = before.models[source]
        if options.as_json:
            print_event(_fetched(model, was))
        else:
            say(_line(model, was))


def _line(model: Model, was: Model | None) -> str:
    if model.commit is None:
        return f"{title(model.source)}: in {model.folder}, nothing to fetch"
    if was is None:
        how = "fetched"
    elif was.commit != model.commit:
        how = f"moved, fetched (it was at {was.commit})"
    else:
        how = "is here"
    return f"{title(model.source)}: commit {model.commit}, {how}"


def _fetched(model: Model, was: Model | None) -> Fetched:
    before = was.commit if was else None
    asked = model.source.model_dump()
    return Fetched(**asked, commit=model.commit, before=before, folder=str(model.folder), time=present())
