"""``runner port``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.cli.common import Options, open_pipeline, print_json, say
from runner.cli.tailored import change_as_dict, moved, refuse_overwriting, stage_as_dict, told
from runner.errors import ExitCode, UsageError
from runner.files.storage import write_atomically
from runner.manifest.record import as_run
from runner.tailor.port import Ported, port
from runner.tailor.predictions import in_words
from runner.units import format_size

if TYPE_CHECKING:
    from runner.plan.stage_plan import StagePlan
    from runner.tailor.hardware import Hardware


def rewrite(
    manifest: Path, hardware: Hardware, out: Path | None, *, in_place: bool, force: bool, as_json: bool
) -> int:
    """Rewrite a manifest for other hardware: to stdout, to a file or where it is.

    Raises:
        RunnerError: the options contradict each other, or :func:`runner.tailor.port.port` finds no way.

    """
    _check(hardware, out, in_place=in_place, force=force)
    ported = port(open_pipeline(manifest, Options()), hardware)
    target = Path(manifest).resolve() if in_place else out
    text = ported.manifest.text
    if target is not None:
        text = _moved(ported, target)
        write_atomically(target, text.encode())
    shown = manifest if in_place else out
    if as_json:
        print_json(_as_dict(manifest, shown, ported, text))
        return ExitCode.DONE
    _show(ported)
    if shown is None:
        sys.stdout.write(text)
    else:
        say(f"wrote {shown}")
    return ExitCode.DONE


def _check(hardware: Hardware, out: Path | None, *, in_place: bool, force: bool) -> None:
    if not any(vars(hardware).values()):
        raise UsageError("say what the other hardware has: --vram, --ram, --device")
    hardware.check()
    if in_place and out is not None:
        raise UsageError("-o and --in-place exclude each other")
    refuse_overwriting(out, force=force)


def _moved(ported: Ported, target: Path) -> str:
    """The text with relative paths as they are seen from another folder."""
    if target.parent.resolve() == ported.manifest.folder.resolve():
        return ported.manifest.text
    return as_run(ported.manifest, target.parent).decode()


def _show(ported: Ported) -> None:
    for change in ported.changes:
        say(told(change))
    if not ported.changes:
        say("nothing is changed: it fits as it is")
    for before, after in zip(ported.before, ported.after, strict=True):
        say(f"{after.stage.name}: {_before_and_after(before, after)}")
    for note in ported.notes:
        say(f"note: {note}")


def _before_and_after(before: StagePlan | None, after: StagePlan) -> str:
    """``resident -> device-map, VRAM 5.81 GiB, RAM 4.9 GiB; moved a pass: nothing -> 17.40 GiB``."""
    placements = [plan.chosen.placement for plan in (before, after) if plan is not None]
    placement = f"{placements[0]} -> " if placements[0] != placements[-1] else ""
    sizes = [format_size(moved(plan)) if moved(plan) else "nothing" for plan in (before, after) if plan]
    return f"{placement}{in_words(after)}; weights moved a pass: {' -> '.join(dict.fromkeys(sizes))}"


def _as_dict(manifest: Path, out: Path | None, ported: Ported, text: str) -> dict[str, Any]:
    stages = []
    for before, after in zip(ported.before, ported.after, strict=True):
        stages.append({**stage_as_dict(after), "before": stage_as_dict(before) if before else None})
    return {
        "manifest": str(manifest),
        "path": str(out) if out else None,
        "changes": [change_as_dict(change) for change in ported.changes],
        "stages": stages,
        "notes": list(ported.notes),
        "text": text,
    }
