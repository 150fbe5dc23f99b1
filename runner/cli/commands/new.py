"""``runner new``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from runner.cli.options import Device, Force, Json, Out, Ram, Vram
from runner.cli.output import print_json, say
from runner.cli.tailored import change_as_json, change_line, refuse_overwriting, stage_as_json
from runner.errors import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from runner.tailor.new import NewManifest


def new(
    context: typer.Context,
    vram: Vram = None,
    ram: Ram = None,
    device: Device = None,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A hub id, a folder starting with . / or ~, or plugin:NAME/FOLDER; "
            "by default the template's own.",
        ),
    ] = None,
    template: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--template", metavar="NAME", help="The template, if there are several for the model."),
    ] = None,
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--name", metavar="NAME", help="The name of the run directory; by default the file's name."
        ),
    ] = None,
    out: Out = None,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """Write a manifest for given hardware, or for this machine's where a size is not given.

    Example: runner new --vram 12GiB --ram 48GiB -o flux.toml
    """
    from runner.cli.measuring import MeasuringMessages
    from runner.cli.pipelines import discover_plugins
    from runner.files.storage import write_atomically
    from runner.machine.describe import Machine
    from runner.supervisor.requests.measuring import measuring
    from runner.tailor.hardware import Hardware
    from runner.tailor.new import NewManifestRequest, make
    from runner.tailor.predictions import in_words

    request = NewManifestRequest(Hardware(device, vram, ram), model, template, name, out)
    request.hardware.check()
    refuse_overwriting(out, force=force)
    with measuring(MeasuringMessages()):
        made = make(request, discover_plugins(), context.obj or Machine.here())
    if out is not None:
        write_atomically(out, made.manifest.text.encode())
    if as_json:
        print_json(_as_json(made, out))
        return ExitCode.DONE
    for line in (*made.notes, *map(change_line, made.lowered)):
        say(line)
    if out is None:
        sys.stdout.write(made.manifest.text)
        return ExitCode.DONE
    for plan in made.plans:
        say(f"{plan.stage.name}: {in_words(plan)}")
    say(f"wrote {out}")
    return ExitCode.DONE


def _as_json(made: NewManifest, out: Path | None) -> dict[str, Any]:
    table = made.manifest.table
    return {
        "path": out,
        "name": table.name,
        "template": {"name": made.template.name, "distribution": made.distribution},
        "model": table.model.source if table.model else None,
        "budget": {"device": table.budget.device, "vram": table.budget.vram, "ram": table.budget.ram},
        "stages": [stage_as_json(plan) for plan in made.plans],
        "changes": [change_as_json(change) for change in made.lowered],
        "notes": made.notes,
        "text": made.manifest.text,
    }
