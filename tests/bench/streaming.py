"""Streamed weights against every other way to run a transformer that is larger than RAM, on the CPU.

    python tests/bench/streaming.py [--ram 2GiB] [--double 2 --single 6] [--steps 2] [--threads 2]

The same work for all: FluxPipeline on given embeddings, items with seeds of their own, from a random checkpoint
with FLUX's full-width blocks. Each contender has a process of its own, under the same limit (kept by a control
group where one can be made), and finds the page cache cold. The hash tells whether results are equal to the bit.
(On an accelerator: tests/bench/accelerator.py.)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from runner.machine.cpu import core_count
from runner.machine.interpreter import WORKER_ENVIRONMENT
from runner.machine.ram import ram_of
from runner.supervisor.processes.control_group import limited
from runner.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = {
    "resident": "resident, no limit",
    "mapped": "diffusers from_pretrained (memory-mapped)",
    "accelerate disk": "accelerate device map with disk",
    "ours": "runner, stream",
}


def main() -> None:
    asked = _arguments()
    if asked.contender:
        print(json.dumps(_contend(asked)))
        return
    folder = asked.model or Path(tempfile.gettempdir()) / f"flux-{asked.double}-{asked.single}"
    if not folder.exists():
        from large import make_transformer  # what it imports is no part of a contender's memory

        make_transformer(folder, double=asked.double, single=asked.single)
    limit = parse_size(asked.ram)
    print(f"{platform.machine()}, {core_count()} cores, {asked.threads} threads, {_cpu_name()}")
    print(
        f"{asked.double} double and {asked.single} single blocks, {asked.side} x {asked.side} pixels, ",
        end="",
    )
    print(f"{asked.steps} steps, limit {format_size(limit)}\n")
    print("| contender | items | load s | run s | s an image-step | peak RAM | read | bits |")
    print("|---|---|---|---|---|---|---|---|")
    hashes: dict[str, str] = {}
    for contender in asked.only or NAMES:
        for items in asked.items if contender == "ours" else (asked.others,):
            _show(contender, items, _measure(asked, folder, contender, items, limit), hashes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, help="a transformer's folder; made in the temporary folder else"
    )
    parser.add_argument("--ram", default="2GiB", help="the limit")
    parser.add_argument("--double", type=int, default=2)
    parser.add_argument("--single", type=int, default=6)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=core_count())
    parser.add_argument(
        "--items", type=int, nargs="+", default=[1, 2, 4, 8], help="ours: items, in lockstep as planned"
    )
    parser.add_argument("--others", type=int, default=4, help="items of the other contenders")
    parser.add_argument("--only", nargs="+", choices=sorted(NAMES), help="these contenders alone")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(
    asked: argparse.Namespace, folder: Path, contender: str, items: int, limit: int
) -> dict[str, Any]:
    """Run a contender in a process of its own, watched."""
    own = ["--contender", contender, "--count", str(items), "--model", str(folder)]
    command = [sys.executable, __file__, *sys.argv[1:], *own]
    _forget_files()
    environment = os.environ | (WORKER_ENVIRONMENT if contender == "ours" else {})
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    watched: dict[str, int] = {"peak": 0, "read": 0}
    watcher = threading.Thread(target=_watch, args=(process, watched), daemon=True)
    watcher.start()
    ram = limit if contender != "resident" else None
    with limited(process.pid, ram):
        out, error = process.communicate()
    watcher.join()
    if process.returncode:
        last = (error.strip().splitlines() or [f"ended with {process.returncode}"])[-1]
        return {"failed": "killed: over the limit" if process.returncode < 0 else last, **watched}
    return {**json.loads(out.splitlines()[-1]), **watched}


def _watch(process: subprocess.Popen[str], watched: dict[str, int]) -> None:
    while process.poll() is None:
        watched["peak"] = max(watched["peak"], ram_of(process.pid) or 0)
        try:
            counters = Path(f"/proc/{process.pid}/io").read_text()
        except OSError:
            return
        watched["read"] = int(counters.partition("read_bytes: ")[2].split()[0])
        time.sleep(0.02)


def _forget_files() -> None:
    """Empty the page cache, where we may."""
    subprocess.run(["sync"], check=False)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        print("(the page cache stays as it is: only root empties it)", file=sys.stderr)


def _show(contender: str, items: int, found: dict[str, Any], hashes: dict[str, str]) -> None:
    cells = [NAMES[contender], str(items)]
    if "failed" in found:
        print(
            f"| {' | '.join(cells)} | {found['failed'][:80]} | | | {format_size(found['peak'])} | | |",
            flush=True,
        )
        return
    equal = [hashes.setdefault(seed, hash_) == hash_ for seed, hash_ in found["hashes"].items()]
    steps = items * found["steps"]
    cells += [f"{found['load']:.1f}", f"{found['run']:.1f}", f"{found['run'] / steps:.2f}"]
    cells += [format_size(found["peak"]), format_size(found["read"]), "equal" if all(equal) else "differ"]
    print(f"| {' | '.join(cells)} |", flush=True)


def _contend(asked: argparse.Namespace) -> dict[str, Any]:
    """In the contender's process: load, and run."""
    import torch
    from bench import contenders

    torch.set_num_threads(asked.threads)
    work = contenders.Work(asked.model, "cpu", parse_size(asked.ram), asked.side)
    loaders: dict[str, Callable[[], contenders.Run]] = {
        "resident": lambda: contenders.resident(work),
        "mapped": lambda: contenders.memory_mapped(work),
        "accelerate disk": lambda: contenders.accelerate_disk(work),
        "ours": lambda: contenders.streamed(work, asked.count, asked.steps),
    }
    started = time.perf_counter()
    with torch.inference_mode():
        run = loaders[asked.contender]()
        ready = time.perf_counter()
        pictures = run(range(asked.count), asked.steps)
        done = time.perf_counter()
    return {
        "load": ready - started,
        "run": done - ready,
        "steps": asked.steps,
        "hashes": contenders.hashes(range(asked.count), pictures),
    }


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = [line for line in lines if line.startswith("model name")]
    return found[0].partition(": ")[2] if found else "CPU"


if __name__ == "__main__":
    main()
