"""The parts of the accelerator's benchmark. Each is a process: it prints a row of results a line, as JSON.

python tests/bench/accelerator_parts.py PART SETTINGS      (as tests/bench/accelerator.py starts it)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from bench.accelerator_peak import DevicePeak
from bench.accelerator_sizes import SIZES, Size, make_checkpoint
from bench.pipeline_runs import PipelineRun, Settings, run, seconds_of, write_manifest

from runner.machine.rates import measure_device, measure_disk
from runner.units import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.accelerator_results import Row


@dataclass(frozen=True)
class Bench:
    """What the parts share. Everything is written in the folder."""

    folder: Path
    device: str
    uuid: str
    """The card's, for NVML; empty for other devices."""
    size: Size

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def settings(self) -> Settings:
        return Settings(self.model, self.device, self.size.steps, self.size.side, self.size.text)


class PartError(Exception):
    """A part cannot go on."""


def checkpoint(bench: Bench) -> Iterator[Row]:
    """Write the checkpoint, unless it is there."""
    if bench.model.exists():
        yield {"what": "random checkpoint, written before"}
        return
    started = time.perf_counter()
    written = make_checkpoint(bench.model, bench.size, bench.device)
    seconds = time.perf_counter() - started
    note = f"{format_size(written)}, {written / seconds / 1e9:.2f} GB/s"
    yield {"what": "random checkpoint, written", "seconds": seconds, "note": note}


def speeds(bench: Bench) -> Iterator[Row]:
    """Measure, as `runner doctor` does, the device's context and the speeds that plans use."""
    started = time.perf_counter()
    disk, device = measure_disk(bench.folder), measure_device(bench.device)
    if device is None:
        raise PartError("the device could not be measured")
    compute = ", ".join(f"{dtype} {rate / 1e12:.2f} TFLOPS" for dtype, rate in device.compute.items())
    bus = f"{device.bus / 1e9:.1f} GB/s from pinned RAM" if device.bus else "bus unknown"
    context = "unknown" if device.context is None else format_size(device.context)
    reads = f"{disk / 1e9:.1f} GB/s from disk" if disk else "disk unknown"
    note = f"context {context}, {compute}, {bus}, {reads}"
    yield {"what": "speeds and context", "seconds": time.perf_counter() - started, "note": note}


def encode(bench: Bench) -> Iterator[Row]:
    """CLIP and T5 in float32: as planned for the limit, and without one."""
    manifest = bench.folder / "encode.toml"
    write_manifest(manifest, bench.settings, encode_only=True)
    limited: dict[str, object] = {"budget.vram": bench.size.limit}
    choices: dict[str, dict[str, object]] = {
        "auto": limited,
        "resident": {"stage.encode.placement": "resident"},
        "model-offload": {"stage.encode.placement": "model-offload"},
    }
    for name, sets in choices.items():
        yield from _rows(bench, manifest, f"encode-{name}", sets, group="embeddings")


def placement(bench: Bench, name: str) -> Iterator[Row]:
    """Pictures with the transformer and the decoder placed in one way; `resident` has no limit."""
    _take_handoffs(bench, name, ("encode",))
    sets = {f"stage.{stage}.placement": name for stage in ("diffuse", "decode")}
    limit = {} if name == "resident" else {"budget.vram": bench.size.limit}
    yield from _rows(bench, _pictures_manifest(bench), name, {**sets, **limit}, group="pictures")


def decode(bench: Bench) -> Iterator[Row]:
    """The decoder alone: whole pictures, and tiles with the limit and without; tiles have pixels of their own."""
    limit = {"budget.vram": bench.size.limit}
    tiles = {"stage.decode.with.tiling": bench.size.tile}
    choices: dict[str, tuple[dict[str, object], str]] = {
        "whole": ({**limit, "stage.decode.with.tiling": "off"}, "pictures"),
        "tiles": ({**limit, **tiles}, "tiles"),
        "tiles-unlimited": ({**tiles, "stage.decode.placement": "resident"}, "tiles"),
    }
    for name, (sets, group) in choices.items():
        _take_handoffs(bench, f"decode-{name}", ("encode", "diffuse"))
        yield from _rows(bench, _pictures_manifest(bench), f"decode-{name}", sets, group=group)


def _pictures_manifest(bench: Bench) -> Path:
    manifest = bench.folder / "pictures.toml"
    write_manifest(manifest, bench.settings)
    return manifest


def _take_handoffs(bench: Bench, name: str, stages: tuple[str, ...]) -> None:
    """Copy earlier stages' results from another part's run, where there are any, to save their time."""
    for stage in stages:
        found = sorted(bench.folder.glob(f"runs/*/handoff/{stage}"))
        target = bench.folder / "runs" / name / "handoff" / stage
        if found and not target.exists():
            shutil.copytree(found[0], target)


def _rows(
    bench: Bench, manifest: Path, name: str, sets: Mapping[str, object], *, group: str
) -> Iterator[Row]:
    """Run a manifest, and report a row for each stage that ran."""
    with DevicePeak(bench.uuid) as peak:
        ran = run(manifest, name, sets)
    started, finished = ran.of("stage_started"), ran.of("stage_finished")
    for stage, end in finished.items():
        begin = started[stage]
        row: Row = {
            "what": f"{stage}, {begin['placement']}",
            "items": begin["items"],
            "load": ran.of("stage_ready").get(stage, {}).get("seconds"),
            "seconds": end["seconds"],
            "image_step": ran.seconds_an_image_step(stage),
            "limit": sets.get("budget.vram"),
            "predicted": end["predicted"]["vram"],
            "nvml": peak.between(seconds_of(begin), seconds_of(end)),
            "allocator": end["measured"]["vram_reserved"],
            "ram_predicted": end["predicted"]["ram"],
            "ram": end["measured"]["ram"],
        }
        if stage == list(finished)[-1] and not ran.code:
            hashes = ran.pictures() or _tensors(ran, stage)
            row |= {"group": group, "hashes": hashes, "must_equal": True}
        yield row
    if ran.code:
        raise PartError(f"runner run {name} ended with exit code {ran.code}: {ran.error}")
    if not finished:
        raise PartError(f"runner run {name} ran no stage")


def _tensors(ran: PipelineRun, stage: str) -> dict[str, str]:
    """SHA-256 of the tensors in each hand-off of a stage."""
    from safetensors.torch import load_file

    found = {}
    for path in sorted((ran.directory / "handoff" / stage).glob("*.safetensors")):
        digest = hashlib.sha256()
        for tensor in dict(sorted(load_file(path).items())).values():
            digest.update(tensor.float().numpy().tobytes())
        found[path.stem] = digest.hexdigest()
    return found


def _throughput(bench: Bench, name: str) -> Iterator[Row]:
    from bench import accelerator_throughput  # it imports torch, which the other parts leave to their workers

    yield from accelerator_throughput.PARTS[name](bench)


PLACEMENTS = ("resident", "stream", "group-offload", "device-map", "sequential-offload")
"""Of stages with one component, where `model-offload` is `resident`: the part ``encode`` has that."""

PARTS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "checkpoint": checkpoint,
    "speeds": speeds,
    "encode": encode,
    "placement:resident": partial(placement, name="resident"),
    "placement:stream": partial(placement, name="stream"),
    "throughput:resident": partial(_throughput, name="resident"),
    "throughput:stream": partial(_throughput, name="stream"),
    "throughput:group-offload": partial(_throughput, name="group-offload"),
    **{f"placement:{name}": partial(placement, name=name) for name in PLACEMENTS[2:]},
    "decode": decode,
    "throughput:group-offload-blocks": partial(_throughput, name="group-offload-blocks"),
}
"""In the order in which they run: what matters most comes first."""


def main() -> None:
    """Run the part that the command line names."""
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    bench = Bench(Path(settings["folder"]), settings["device"], settings["uuid"], SIZES[settings["size"]])
    try:
        for row in PARTS[name](bench):
            print(json.dumps(row), flush=True)
    except PartError as error:
        sys.exit(" ".join(str(error).split()))  # one line, which the results show


if __name__ == "__main__":
    main()
