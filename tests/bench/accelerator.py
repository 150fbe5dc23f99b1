"""What the engine does on an accelerator: memory, pixels and speed, in at most eight minutes.

    python tests/bench/accelerator.py --out DIR [--size tiny|small|full] [--parts NAME ...]

Nothing is downloaded: a random checkpoint is written in FLUX.1's published layout, at its full size on a device
of 40 GiB or more. Each part has a process and a time limit of its own; what it has measured is kept in
DIR/results.json and DIR/results.md even if it fails, and the next part runs. Exits with 1 if a part failed.

Columns: `predicted` is the plan's peak of device memory, `NVML` the driver's (the context included), `allocator`
what PyTorch's has reserved at most. Seconds an image-step: in parts of `runner run`, from the end of loading to
the last step; in `throughput`, of a whole pipeline call on a device that is warm.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

import pynvml
from bench.accelerator_parts import PARTS
from bench.accelerator_results import FAILED, OK, TIMED_OUT, Part, Results
from bench.accelerator_sizes import SIZES, Size, check_disk, largest_for

from runner.accelerator.discovery import accelerators, choose_device, device_named, reasons
from runner.accelerator.names import AUTO, CPU, CUDA
from runner.errors import BudgetError
from runner.machine.interpreter import WORKER_ENVIRONMENT
from runner.units import format_size

if TYPE_CHECKING:
    from runner.accelerator.device import Device

TOTAL = 465.0  # seconds for all parts, so that the script ends within eight minutes
SECONDS = 75.0  # for a part
LONGER = {"checkpoint": 120.0, "encode": 100.0, "throughput:stream": 100.0}
LEAST = 5.0  # seconds left of the total that are worth starting a part for
GRACE = 5.0  # seconds for a part to end its workers before it is killed
PACKAGES = ("stage-runner", "torch", "diffusers", "transformers", "accelerate")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--size", choices=SIZES, help="default: the largest that the device has memory for")
    parser.add_argument("--device", default=AUTO, help="default: as the engine chooses")
    parser.add_argument("--parts", nargs="+", choices=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--seconds", type=float, help="the limit of each part")
    parser.add_argument("--total", type=float, default=TOTAL, help="the limit of all parts, in seconds")
    parser.add_argument("--folder", type=Path, help="of the checkpoint and the runs; default: in --out")
    parser.add_argument("--keep", action="store_true", help="keep that folder for another run")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # the part ends too
    started = time.monotonic()
    device = _device(args.device)
    size = SIZES[args.size] if args.size else largest_for(device.memory)
    print(f"{device.name} ({device.id}, {format_size(device.memory)}): size {size.name}, limit {size.limit}")
    args.out.mkdir(parents=True, exist_ok=True)
    folder = (args.folder or args.out / "work").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    check_disk(folder, size)
    shutil.rmtree(folder / "runs", ignore_errors=True)  # results of an earlier run are not measured again
    results = Results(args.out, _about(device, size))
    settings = {"folder": str(folder), "device": device.id, "uuid": device.uuid, "size": size.name}
    for name in [name for name in PARTS if args.parts is None or name in args.parts or name == "checkpoint"]:
        left = args.total - (time.monotonic() - started)
        limit = min(left, args.seconds or LONGER.get(name, SECONDS))
        part = Part(name)
        if left < LEAST:
            part.status, part.reason = TIMED_OUT, f"no time left of {args.total:.0f} s"
        else:
            _run(part, settings, limit, args.out / f"{name.replace(':', '-')}.log", results)
        results.add(part)
    if not args.keep:
        shutil.rmtree(folder)
    print(
        f"\n{time.monotonic() - started:.0f} s in all; {args.out / 'results.md'}, {args.out / 'results.json'}"
    )
    return int(results.failed)


def _device(name: str) -> Device:
    """The accelerator of that name, or the first one; exits with a message if there is none."""
    if name == CPU:
        sys.exit(
            "this benchmark needs an accelerator; tests/bench/streaming.py and placements.py run on the CPU"
        )
    found = accelerators()
    if not found:
        why = "; ".join(f"{kind}: {reason}" for kind, reason in reasons().items())
        sys.exit(f"this benchmark needs an accelerator, and this machine has none ({why})")
    try:
        device = device_named(choose_device(name, vram=1, found=found), found)
    except BudgetError as error:
        sys.exit(str(error))
    assert device is not None
    return device


def _about(device: Device, size: Size) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in PACKAGES}
    if device.kind == CUDA:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            versions["driver"] = str(pynvml.nvmlSystemGetDriverVersion())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device.id,
        "name": device.name,
        "memory": device.memory,
        "cores": os.cpu_count(),
        "size": size.name,
        "limit": size.limit,
        "side": size.side,
        "steps": size.steps,
        "versions": versions,
    }


def _run(part: Part, settings: dict[str, str], limit: float, log: Path, results: Results) -> None:
    """Run a part in a process of its own, and take its rows as they come."""
    parts = Path(__file__).with_name("accelerator_parts.py")
    command = [sys.executable, str(parts), part.name, json.dumps(settings)]
    environment = os.environ | WORKER_ENVIRONMENT
    environment["RUNNER_CACHE"] = str(Path(settings["folder"]) / "cache")
    started = time.monotonic()
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, start_new_session=True
        )
        lines = _lines(process)
        try:
            while (line := lines.get(timeout=max(0.0, started + limit - time.monotonic()))) is not None:
                row = json.loads(line)
                results.compare(row)
                part.rows.append(row)
        except queue.Empty:
            part.status, part.reason = TIMED_OUT, f"not done after {round(limit, 1):g} s"
        finally:
            _end(process)
    part.seconds = time.monotonic() - started
    if process.returncode and part.status == OK:
        last = (log.read_text().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        part.status, part.reason = FAILED, last


def _lines(process: subprocess.Popen[str]) -> queue.SimpleQueue[str | None]:
    """The lines that a process prints, and None at its end."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    assert process.stdout is not None
    output = process.stdout

    def read() -> None:
        for line in output:
            lines.put(line)
        process.wait()
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _end(process: subprocess.Popen[str]) -> None:
    """End a process that still runs, with all that it has started: first politely, so that workers end too."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


if __name__ == "__main__":
    sys.exit(main())
