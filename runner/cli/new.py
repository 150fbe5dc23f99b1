"""``runner new``."""

from __future__ import annotations

import sys
from typing import Any

from runner.cli.common import print_json, say, warn
from runner.cli.tailored import change_as_dict, refuse_overwriting, stage_as_dict, told
from runner.errors import ExitCode
from runner.files.storage import write_atomically
from runner.plugins import discover
from runner.tailor.new import NewManifest, NewManifestRequest, make
from runner.tailor.predictions import in_words


def new(wanted: NewManifestRequest, *, force: bool, as_json: bool) -> int:
    """Write a manifest for hardware, to a file or to stdout.

    Raises:
        RunnerError: the file is there already, or :func:`runner.tailor.new.make` finds no way.

    """
    wanted.hardware.check()
    refuse_overwriting(wanted.out, force=force)
    plugins = discover()
    warn(plugins)
    made = make(wanted, plugins)
    if wanted.out is not None:
        write_atomically(wanted.out, made.manifest.text.encode())
    if as_json:
        print_json(_as_dict(wanted, made))
        return ExitCode.DONE
    for line in (*made.notes, *map(told, made.lowered)):
        say(line)
    if wanted.out is None:
        sys.stdout.write(made.manifest.text)
        return ExitCode.DONE
    for plan in made.plans:
        say(f"{plan.stage.name}: {in_words(plan)}")
    say(f"wrote {wanted.out}")
    return ExitCode.DONE


def _as_dict(wanted: NewManifestRequest, made: NewManifest) -> dict[str, Any]:
    table = made.manifest.table
    return {
        "path": str(wanted.out) if wanted.out else None,
        "name": table.name,
        "template": {"name": made.template.name, "distribution": made.distribution},
        "model": table.model.source if table.model else None,
        "budget": {"device": table.budget.device, "vram": table.budget.vram, "ram": table.budget.ram},
        "stages": [stage_as_dict(plan) for plan in made.plans],
        "changes": [change_as_dict(change) for change in made.lowered],
        "notes": list(made.notes),
        "text": made.manifest.text,
    }
