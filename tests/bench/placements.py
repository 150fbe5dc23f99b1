"""Every placement on the same pictures: predicted and measured peaks, seconds, and whether the pixels are equal.

    python tests/bench/placements.py --device cuda --vram 8GiB --full-size
    python tests/bench/placements.py --ram 3GiB              # on the CPU, 2 double and 6 single blocks

The three stages of FLUX.1 run through `runner run` from a random checkpoint in the published layout, made once
in the temporary folder. `resident` runs without a limit: it is what the others are held against.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from checkpoints import make_flux
from large import DOUBLE, SINGLE, make_full_flux, make_transformer

from runner.units import format_size

MANIFEST = """
version = 1
name = "placements"
[model]
source = "{model}"
[budget]
device = "{device}"
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "{encode}"
save_dtype = "bfloat16"
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
[stage.with]
steps = {steps}
height = {side}
width = {side}
[[stage]]
name = "decode"
uses = "flux.decode"
dtype = "bfloat16"
[batch]
prompts = ["a red fox in the snow", "a harbour town in the rain"]
seeds = [0]
"""
ON_CPU = ("resident", "stream", "device-map")
ON_CUDA = (*ON_CPU, "model-offload", "group-offload", "sequential-offload")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--vram", help="the limit on a card")
    parser.add_argument("--ram", help="the limit of RAM")
    parser.add_argument(
        "--full-size", action="store_true", help="FLUX.1-dev's own size, 34 GB, 1024 x 1024 pixels"
    )
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=ON_CUDA)
    asked = parser.parse_args()
    model = _checkpoint(full=asked.full_size)
    work = Path(tempfile.mkdtemp(prefix="placements-"))
    filled = {
        "model": model,
        "device": asked.device,
        "steps": asked.steps,
        "side": 1024 if asked.full_size else 256,
    }
    (work / "m.toml").write_text(
        MANIFEST.format(**filled, encode="bfloat16" if asked.full_size else "float32")
    )
    print(f"{platform.machine()}, {asked.device}, VRAM limit {asked.vram}, RAM limit {asked.ram}\n")
    print(
        "| asked for | stage | ran as | seconds | VRAM predicted | measured | RAM predicted | measured | pixels |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    pictures: dict[str, dict[str, bytes]] = {}
    for placement in asked.only or (ON_CUDA if asked.device == "cuda" else ON_CPU):
        limits = {"vram": asked.vram, "ram": asked.ram} if placement != "resident" else {}
        pictures[placement] = _run(work, placement, limits, next(iter(pictures.values()), None))
    shutil.rmtree(work)


def _checkpoint(*, full: bool) -> Path:
    double, single = (DOUBLE, SINGLE) if full else (2, 6)
    folder = Path(tempfile.gettempdir()) / f"flux-model-{double}-{single}"
    if folder.exists():
        return folder
    if full:
        return make_full_flux(folder, sparse=False)
    make_flux(folder, text=(768, 4096))
    shutil.rmtree(folder / "transformer")
    make_transformer(folder / "transformer", double=double, single=single)
    return folder


def _run(
    work: Path, placement: str, limits: dict[str, str | None], expected: dict[str, bytes] | None
) -> dict[str, bytes]:
    sets = [f"name={placement}", f"stage.diffuse.placement={placement}"]
    sets += [f"budget.{name}={limit}" for name, limit in limits.items() if limit]
    command = [sys.executable, "-m", "runner", "run", "m.toml", "--json"]
    command += [word for setting in sets for word in ("--set", setting)]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        print(
            f"| {placement} | exit code {done.returncode}: {done.stderr.strip().splitlines()[0][:120]} |",
            flush=True,
        )
    folder = work / "runs" / placement / "outputs"
    pictures = {p.name: p.read_bytes() for p in sorted(folder.glob("*.png"))} if folder.exists() else {}
    pixels = "-" if expected is None else "equal" if pictures == expected else "DIFFER"
    started = {e["stage"]: e["placement"] for e in events if e["event"] == "stage_started"}
    for event in events:
        if event["event"] == "stage_finished":
            print(f"| {placement} | {_cells(event, started[event['stage']])} | {pixels} |", flush=True)
    return pictures


def _cells(event: dict[str, Any], placement: str) -> str:
    cells = [event["stage"], placement, f"{event['seconds']:.1f}"]
    for kind in ("vram", "ram"):
        sizes = (event["predicted"][kind], event["measured"][kind])
        cells += [format_size(size) if size else "-" for size in sizes]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
