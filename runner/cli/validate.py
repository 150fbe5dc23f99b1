"""``runner validate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.cli.common import Options, check, open_pipeline, print_json, say
from runner.errors import ExitCode
from runner.work.models import assemble

if TYPE_CHECKING:
    from pathlib import Path


def validate(manifest: Path, options: Options) -> int:
    """Check everything that can be checked without a device or a network."""
    pipeline = open_pipeline(manifest, options)
    assembly = assemble(pipeline)
    assembly.refuse_unreachable()
    check(assembly, [s for s in pipeline.stages if not s.spec.components or assembly.model(s)])
    notes = [note for stage in pipeline.stages if assembly.model(stage) for note in assembly.notes(stage)]
    for note in dict.fromkeys(notes):
        say(f"note: {note}")
    stages, items = [stage.name for stage in pipeline.stages], len(pipeline.items)
    if options.as_json:
        print_json({"ok": True, "exit_code": 0, "stages": stages, "items": items})
    else:
        absent = [source.source for source, model in assembly.models.items() if model is None]
        here = f"; not here yet: {', '.join(absent)}" if absent else ""
        say(f"{manifest}: ok ({' > '.join(stages)}; {items} items{here})")
    return ExitCode.DONE
