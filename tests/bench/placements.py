"""Every placement on the CPU on the same pictures: predicted and measured peaks, seconds, equality of pixels.

    python tests/bench/placements.py --ram 3GiB

The three stages of FLUX.1 run through `runner run` from a random checkpoint in the published layout with 2
double and 6 single blocks of full width, made once in the temporary folder. `resident` runs without a limit: it
is what the others are held against. (On an accelerator: tests/bench/accelerator.py.)
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from bench.pipeline_runs import Settings, run, write_manifest
from checkpoints import make_flux
from large import make_transformer

from runner.units import format_size

PLACEMENTS = ("resident", "stream", "device-map")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ram", help="the limit of RAM")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=PLACEMENTS)
    asked = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="placements-"))
    write_manifest(work / "m.toml", Settings(_checkpoint(), "cpu", asked.steps, 256))
    print(f"{platform.machine()}, RAM limit {asked.ram}\n")
    print("| asked for | stage | ran as | seconds | RAM predicted | measured | pixels |")
    print("|---|---|---|---|---|---|---|")
    pictures: dict[str, dict[str, str]] = {}
    for placement in asked.only or PLACEMENTS:
        ram = asked.ram if placement != "resident" else None
        pictures[placement] = _run(work, placement, ram, next(iter(pictures.values()), None))
    shutil.rmtree(work)


def _checkpoint() -> Path:
    folder = Path(tempfile.gettempdir()) / "flux-model-2-6"
    if not folder.exists():
        make_flux(folder, text=(768, 4096))
        shutil.rmtree(folder / "transformer")
        make_transformer(folder / "transformer", double=2, single=6)
    return folder


def _run(work: Path, placement: str, ram: str | None, expected: dict[str, str] | None) -> dict[str, str]:
    limit = {"budget.ram": ram} if ram else {}
    ran = run(work / "m.toml", placement, {"stage.diffuse.placement": placement, **limit})
    if ran.code:
        print(f"| {placement} | exit code {ran.code}: {ran.error[:120]} |", flush=True)
    pictures = ran.pictures()
    pixels = "-" if expected is None else "equal" if pictures == expected else "DIFFER"
    started = ran.of("stage_started")
    for stage, event in ran.of("stage_finished").items():
        print(f"| {placement} | {_cells(event, started[stage]['placement'])} | {pixels} |", flush=True)
    return pictures


def _cells(event: dict[str, Any], placement: str) -> str:
    sizes = (event["predicted"]["ram"], event["measured"]["ram"])
    cells = [event["stage"], placement, f"{event['seconds']:.1f}"]
    return " | ".join(cells + [format_size(size) if size else "-" for size in sizes])


if __name__ == "__main__":
    main()
