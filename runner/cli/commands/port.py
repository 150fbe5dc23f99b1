"""``runner port``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.options import Device, Force, Json, Manifest, Out, Ram, Vram
from runner.cli.output import print_json, say
from runner.cli.tailored import change_as_json, change_line, moved, refuse_overwriting, stage_as_json
from runner.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from runner.plan.stage_plan import StagePlan
    from runner.tailor.port import Ported


def port(
    manifest: Manifest,
    vram: Vram = None,
    ram: Ram = None,
    device: Device = None,
    out: Out = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Rewrite MANIFEST itself.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """Rewrite a manifest for other hardware: only what must change, and comments are kept.

    Prints on stderr what changed and what that costs. What is not given stays as it is.

    Example: runner port flux.toml --vram 6GiB --ram 16GiB -o small.toml
    """
    from runner.cli.measuring import MeasuringMessages
    from runner.cli.pipelines import open_pipeline, try_adapters_of
    from runner.files.storage import write_atomically
    from runner.supervisor.requests.measuring import measuring
    from runner.tailor.hardware import Hardware
    from runner.tailor.port import port as port_pipeline
    from runner.work.models import resolve_models

    if not (vram or ram or device):
        raise UsageError("say what the other hardware has: --vram, --ram, --device")
    hardware = Hardware(device, vram, ram)
    hardware.check()
    if in_place and out is not None:
        raise UsageError("-o and --in-place exclude each other")
    refuse_overwriting(out, force=force)
    with measuring(MeasuringMessages()):
        pipeline = open_pipeline(manifest)
        try_adapters_of(resolve_models(pipeline))
        ported = port_pipeline(pipeline, hardware)
    target = manifest.resolve() if in_place else out
    text = ported.manifest.text
    if target is not None:
        text = _text_in(ported, target.parent)
        write_atomically(target, text.encode())
    shown = manifest if in_place else out
    if as_json:
        print_json({"manifest": manifest, "path": shown, **_as_json(ported), "text": text})
        return ExitCode.DONE
    _show(ported)
    if shown is None:
        sys.stdout.write(text)
    else:
        say(f"wrote {shown}")
    return ExitCode.DONE


def _text_in(ported: Ported, folder: Path) -> str:
    """The manifest's text for a folder: relative paths start from there."""
    from runner.manifest.record import as_run

    if folder.resolve() == ported.manifest.folder.resolve():
        return ported.manifest.text
    return as_run(ported.manifest, folder, ported.input_files).decode()


def _show(ported: Ported) -> None:
    for change in ported.changes:
        say(change_line(change))
    if not ported.changes:
        say("nothing is changed: it fits as it is")
    for before, after in zip(ported.before, ported.after, strict=True):
        say(f"{after.stage.name}: {_before_and_after(before, after)}")
    for note in ported.notes:
        say(f"note: {note}")


def _before_and_after(before: StagePlan | None, after: StagePlan) -> str:
    """``resident -> device-map, VRAM 5.81 GiB, RAM 4.9 GiB; weights moved a pass: nothing -> 17.40 GiB``."""
    from runner.tailor.predictions import in_words
    from runner.units import format_size

    placements = [plan.chosen.placement for plan in (before, after) if plan is not None]
    placement = f"{placements[0]} -> " if placements[0] != placements[-1] else ""
    sizes = [format_size(moved(plan)) if moved(plan) else "nothing" for plan in (before, after) if plan]
    return f"{placement}{in_words(after)}; weights moved a pass: {' -> '.join(dict.fromkeys(sizes))}"


def _as_json(ported: Ported) -> dict[str, Any]:
    stages = []
    for before, after in zip(ported.before, ported.after, strict=True):
        stages.append({**stage_as_json(after), "before": stage_as_json(before) if before else None})
    return {
        "changes": [change_as_json(change) for change in ported.changes],
        "stages": stages,
        "notes": ported.notes,
    }
