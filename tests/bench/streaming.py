"""Streamed weights against every other way to run a transformer that is larger than the memory it may take.

    python tests/bench/streaming.py [--ram 2GiB] [--double 2 --single 6] [--steps 2] [--threads 2]
    python tests/bench/streaming.py --device cuda --vram 8GiB --full-size

The same work for all: FluxPipeline on given embeddings, items with seeds of their own, from a random checkpoint
with FLUX's full-width blocks. Each contender has a process of its own, under the same limit (kept by a control
group where one can be made), and finds the page cache cold. The hash tells whether results are equal to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
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
from runner.machine.ram import ram_of
from runner.supervisor.limits import limited
from runner.supervisor.spawn import WORKER_ENVIRONMENT
from runner.units import format_size, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

ON_CPU = ("resident", "mapped", "accelerate disk", "ours")
ON_CUDA = ("resident", "accelerate map", "group offload", "group offload, one batch", "ours")
NAMES = {
    "resident": "resident, no limit",
    "mapped": "diffusers from_pretrained (memory-mapped)",
    "accelerate disk": "accelerate device map with disk",
    "accelerate map": "accelerate device map",
    "group offload": "diffusers group offload, leaf level, stream",
    "group offload, one batch": "the same, all items in one plain batch",
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
    limit = parse_size(asked.vram if asked.device == "cuda" else asked.ram)
    print(
        f"{platform.machine()}, {core_count()} cores, {asked.threads} threads, {_device_name(asked.device)}"
    )
    print(
        f"{asked.double} double and {asked.single} single blocks, {asked.side} x {asked.side} pixels, ",
        end="",
    )
    print(f"{asked.steps} steps, limit {format_size(limit)}\n")
    print("| contender | items | load s | run s | s an image-step | peak RAM | peak VRAM | read | bits |")
    print("|---|---|---|---|---|---|---|---|---|")
    hashes: dict[str, str] = {}
    for contender in asked.only or (ON_CUDA if asked.device == "cuda" else ON_CPU):
        for items in asked.items if contender == "ours" else (asked.others,):
            _show(contender, items, _measure(asked, folder, contender, items, limit), hashes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, help="a transformer's folder; made in the temporary folder else"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--ram", default="2GiB", help="on the CPU: the limit")
    parser.add_argument("--vram", default="8GiB", help="on a card: the limit")
    parser.add_argument("--double", type=int, default=2)
    parser.add_argument("--single", type=int, default=6)
    parser.add_argument("--full-size", action="store_true", help="19 and 38 blocks, 1024 x 1024 pixels")
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
    asked = parser.parse_args()
    if asked.full_size:
        asked.double, asked.single, asked.side = 19, 38, 1024  # FLUX.1's
    return asked


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
    ram = limit if asked.device == "cpu" and contender != "resident" else None
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
            told = Path(f"/proc/{process.pid}/io").read_text()
        except OSError:
            return
        watched["read"] = int(told.partition("read_bytes: ")[2].split()[0])
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
            f"| {' | '.join(cells)} | {found['failed'][:80]} | | | {format_size(found['peak'])} | | | |",
            flush=True,
        )
        return
    equal = [hashes.setdefault(seed, hash_) == hash_ for seed, hash_ in found["hashes"].items()]
    steps = items * found["steps"]
    cells += [f"{found['load']:.1f}", f"{found['run']:.1f}", f"{found['run'] / steps:.2f}"]
    cells += [format_size(found["peak"]), format_size(found["vram"]) if found["vram"] else "-"]
    cells += [format_size(found["read"]), "equal" if all(equal) else "differ"]
    print(f"| {' | '.join(cells)} |", flush=True)


def _contend(asked: argparse.Namespace) -> dict[str, Any]:
    """In the contender's process: load, run, and tell."""
    import torch

    torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    started = time.perf_counter()
    with torch.inference_mode():
        run = _loaders()[asked.contender](asked, device)
        ready = time.perf_counter()
        pictures = run(asked.count)
        done = time.perf_counter()
    hashes = {
        str(n): hashlib.sha256(p.float().cpu().numpy().tobytes()).hexdigest() for n, p in enumerate(pictures)
    }
    vram = torch.cuda.max_memory_reserved() if asked.device == "cuda" else 0
    told = {
        "load": ready - started,
        "run": done - ready,
        "steps": asked.steps,
        "vram": vram,
        "hashes": hashes,
    }
    return {**told, "versions": {"torch": torch.__version__}}


def _loaders() -> dict[str, Callable[..., Any]]:
    return {
        "resident": _resident,
        "mapped": _mapped,
        "accelerate disk": _accelerate,
        "accelerate map": _accelerate,
        "group offload": _group_offload,
        "group offload, one batch": _group_offload,
        "ours": _ours,
    }


def _transformer(asked: argparse.Namespace, **options: Any) -> Any:
    import torch
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel.from_pretrained(asked.model, torch_dtype=torch.bfloat16, **options)


def _one_by_one(asked: argparse.Namespace, transformer: Any, device: Any) -> Callable[[int], list[Any]]:
    return lambda count: [_call(asked, transformer, device, [n])[0] for n in range(count)]


def _resident(asked: argparse.Namespace, device: Any) -> Callable[[int], list[Any]]:
    transformer = _transformer(asked)
    for weight in transformer.parameters():  # at torch's own boundaries, as results to the bit ask
        weight.data = weight.data.to(device, copy=True)
    return _one_by_one(asked, transformer, device)


def _mapped(asked: argparse.Namespace, device: Any) -> Callable[[int], list[Any]]:
    return _one_by_one(asked, _transformer(asked), device)


def _accelerate(asked: argparse.Namespace, device: Any) -> Callable[[int], list[Any]]:
    """Its best setting: as much as the limit allows stays, what does not is read from the checkpoint's files."""
    limit = parse_size(asked.vram if asked.device == "cuda" else asked.ram)
    spare = (
        (1 << 30) * 2 if asked.device == "cuda" else 600 << 20
    )  # activations, context; Python and libraries
    memory = {0: limit - spare, "cpu": "100GiB"} if asked.device == "cuda" else {"cpu": limit - spare}
    transformer = _transformer(
        asked, device_map="auto", max_memory=memory, offload_folder=tempfile.mkdtemp(prefix="offload")
    )
    return _one_by_one(asked, transformer, device)


def _group_offload(asked: argparse.Namespace, device: Any) -> Callable[[int], list[Any]]:
    import torch
    from diffusers.hooks import apply_group_offloading

    transformer = _transformer(asked)
    apply_group_offloading(
        transformer,
        device,
        torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=True,
        record_stream=True,
    )
    if asked.contender == "group offload":
        return _one_by_one(asked, transformer, device)
    return lambda count: _call(asked, transformer, device, range(count))


def _ours(asked: argparse.Namespace, device: Any) -> Callable[[int], list[Any]]:
    """As a worker does it, placed as the plan says for this limit and so many items."""
    import torch
    from diffusers import FluxTransformer2DModel
    from runner_flux.memory import diffuse
    from runner_flux.params import Diffuse, Encode

    from runner.api import Component, Sizes
    from runner.machine.malloc import retain_freed_memory
    from runner.model.files import open_component
    from runner.placement.loader import ComponentLoader
    from runner.placements import STREAM
    from runner.plan.candidates import candidates
    from runner.plan.limits import Limits
    from runner.plan.requirements import MemoryRequirements

    files = open_component(
        asked.model.parent, Component(asked.model.name, "diffusers:FluxTransformer2DModel")
    )
    configs = {"transformer": files.shapes.config, "vae": {"block_out_channels": (128, 256, 512, 512)}}
    told = {"prompt_embeds": Encode(prompt="of so many tokens", max_sequence_length=TEXT)}
    sizes = Sizes("bfloat16", asked.device, configs, upstream=told)
    item = diffuse(Diffuse(steps=asked.steps, height=asked.side, width=asked.side), sizes)
    on_cpu = asked.device == "cpu"
    need = MemoryRequirements((files.shapes,), "bfloat16", item, asked.count, has_formula=True, on_cpu=on_cpu)
    need = need.keeping or need
    limits = (
        Limits("cpu", None, parse_size(asked.ram)) if on_cpu else Limits("cuda", parse_size(asked.vram), None)
    )
    placed = next(c for c in candidates(need, limits, None) if c.placement == STREAM)
    loader = ComponentLoader(device, torch.bfloat16)
    (placement,) = placed.placements.values()
    transformer = loader.load(FluxTransformer2DModel, files, placement)
    if on_cpu:
        retain_freed_memory()

    def run(count: int) -> list[Any]:
        pictures: list[Any] = [None] * count

        def make(n: int) -> Callable[[], None]:
            def one() -> None:
                pictures[n] = _call(asked, transformer, device, [n])[0]

            return one

        for first in range(0, count, placed.group):
            group = range(first, min(count, first + placed.group))
            loader.stream.run([make(n) for n in group], lambda: None)
        return pictures

    return run


TEXT = 64  # tokens of the prompt


def _call(asked: argparse.Namespace, transformer: Any, device: Any, seeds: Any) -> Any:
    """A pipeline call for items of these seeds, in one batch: latents, item by item."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(scheduler=scheduler, transformer=transformer, **parts)
    pipeline.set_progress_bar_config(disable=True)

    def drawn(seed: int, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, torch.bfloat16)

    return pipeline(
        prompt_embeds=torch.cat([drawn(100 + seed, 1, TEXT, 4096) for seed in seeds]),
        pooled_prompt_embeds=torch.cat([drawn(200 + seed, 1, 768) for seed in seeds]),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=asked.steps,
        height=asked.side,
        width=asked.side,
        output_type="latent",
    ).images


def _device_name(device: str) -> str:
    if device == "cpu":
        found = [
            line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
        ]
        return found[0].partition(": ")[2] if found else "CPU"
    import torch

    return str(torch.cuda.get_device_name())


if __name__ == "__main__":
    main()
