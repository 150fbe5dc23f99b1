"""``runner validate``."""

from __future__ import annotations

from runner.cli.options import Json, Manifest, Prompts, Sets
from runner.cli.output import print_json, say
from runner.errors import ExitCode


def validate(manifest: Manifest, sets: Sets = None, prompts: Prompts = None, as_json: Json = False) -> int:
    """Check a manifest, its items and its model folders without running anything.

    Example: runner validate demo.toml
    """
    from runner.cli.pipelines import check_stages, open_pipeline
    from runner.work.models import resolve_models

    pipeline = open_pipeline(manifest, sets or [], prompts or [])
    resolved = resolve_models(pipeline)
    resolved.refuse_unreachable()
    check_stages(resolved, [s for s in pipeline.stages if not s.components or resolved.model(s)])
    notes = [note for stage in pipeline.stages if resolved.model(stage) for note in resolved.notes(stage)]
    for note in dict.fromkeys(notes):
        say(f"note: {note}")
    stages, items = [stage.name for stage in pipeline.stages], len(pipeline.items)
    if as_json:
        print_json({"ok": True, "exit_code": 0, "stages": stages, "items": items})
    else:
        absent = [source.source for source, model in resolved.models.items() if model is None]
        here = f"; not here yet: {', '.join(absent)}" if absent else ""
        say(f"{manifest}: ok ({' > '.join(stages)}; {items} items{here})")
    return ExitCode.DONE
