"""The demo against the same work in one diffusers process: wall time, side by side, one after the other.

    python tests/bench/demo.py [--rounds 5]

Both draw the six pictures of ``manifests/demo.toml`` with one thread and write them as PNG. The pictures are
held against each other: they must be the same to the pixel. (The demo hands its embeddings off as bfloat16;
for the comparison both use float32.)
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

MANIFEST = Path(__file__).parents[2] / "manifests" / "demo.toml"

ONE_PROCESS = """
import sys, torch, tomli
from pathlib import Path
import runner_flux
from diffusers import FluxPipeline

torch.set_num_threads(1)
manifest = tomli.loads(Path(sys.argv[1]).read_text())
encode, diffuse = (stage["with"] for stage in manifest["stage"][:2])
source = Path(runner_flux.__file__).parent / "demo"
pipeline = FluxPipeline.from_pretrained(source, torch_dtype=torch.float32)
for name in ("transformer", "text_encoder", "text_encoder_2", "vae"):
    for tensor in getattr(pipeline, name).parameters():
        tensor.data = tensor.data.clone()
pipeline.set_progress_bar_config(disable=True)
options = {name: value for name, value in diffuse.items() if name != "steps"}
for n, prompt in enumerate(manifest["batch"]["prompts"]):
    picture = pipeline(
        prompt,
        num_inference_steps=diffuse["steps"],
        max_sequence_length=encode["max_sequence_length"],
        generator=torch.Generator().manual_seed(manifest["batch"]["seeds"][0]),
        **options,
    ).images[0]
    picture.save(Path(sys.argv[2]) / f"{n}.png")
"""


def timed(command: list[str], folder: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return time.perf_counter() - start


def one_round(folder: Path) -> dict[str, float]:
    runner = [sys.executable, "-m", "runner", "run", str(MANIFEST)]
    runner += ["--set", "stage.encode.save_dtype=float32"]
    times = {
        "one diffusers process": timed(
            [sys.executable, "-c", ONE_PROCESS, str(MANIFEST), str(folder)], folder
        ),
        "runner": timed(runner, folder),
        "runner, nothing to do": timed(runner, folder),
    }
    ours = {path.name for path in (folder / "runs/demo/outputs").glob("*.png")}
    theirs = [pixels(folder / f"{n}.png") for n in range(len(ours))]
    if not all(
        any(np.array_equal(pixels(folder / "runs/demo/outputs" / o), t) for t in theirs) for o in ours
    ):
        sys.exit("the pictures differ")
    return times


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for name, seconds in one_round(Path(folder)).items():
                times.setdefault(name, []).append(seconds)
    print(f"{platform.machine()}, Python {platform.python_version()}, {rounds} rounds, seconds of wall time")
    print("| | min | median | max |\n|---|---|---|---|")
    for name, took in times.items():
        print(f"| {name} | {min(took):.1f} | {statistics.median(took):.1f} | {max(took):.1f} |")
    pairs = zip(times["runner"], times["one diffusers process"], strict=True)
    more = statistics.median(ours - theirs for ours, theirs in pairs)
    print(
        f"\nrunner costs {more:+.1f} s (median of the differences, pair by pair); pictures equal to the pixel"
    )


if __name__ == "__main__":
    main()
