"""FLUX pipeline calls on given embeddings, with the transformer loaded in one way or another.

Each function loads a transformer and returns what runs it: a function of seeds and steps that returns the
latents of each seed.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from runner.accelerator.names import kind_of
from runner.accelerator.overheads import overheads_of

if TYPE_CHECKING:
    from pathlib import Path

    from runner.plan.placement_option import PlacementOption
    from runner.stream.stream import Stream

TEXT = 64  # tokens of the prompt
LIBRARIES = 600 << 20  # bytes of RAM for Python, its libraries and activations

Run = Callable[[Sequence[int], int], list[torch.Tensor]]


@dataclass(frozen=True)
class Work:
    """What every contender runs."""

    model: Path
    """The transformer's folder."""
    device: str
    limit: int
    """Bytes of the device's memory; of RAM on the CPU."""
    side: int
    """Pixels."""
    context: int | None = None
    """Bytes of the device's memory that the process holds beside tensors; None for an estimate."""


def resident(work: Work) -> Run:
    """All weights on the device, at the boundaries that torch allocates: numbers depend on the alignment."""
    transformer = _transformer(work)
    for weight in transformer.parameters():
        weight.data = weight.data.to(work.device, copy=True)
    for buffer in transformer.buffers():
        buffer.data = buffer.data.to(work.device)
    return one_by_one(work, transformer)


def memory_mapped(work: Work) -> Run:
    """Weights mapped from their files, as diffusers loads them."""
    return one_by_one(work, _transformer(work))


def accelerate_disk(work: Work) -> Run:
    """accelerate's device map on the CPU: as much as the limit allows is in RAM, the rest in files."""
    folder = tempfile.mkdtemp(prefix="offload")
    memory = {"cpu": work.limit - LIBRARIES}
    return one_by_one(work, _transformer(work, device_map="auto", max_memory=memory, offload_folder=folder))


def group_offloaded(work: Work, *, level: str = "leaf_level") -> Any:
    """The transformer with diffusers' group offload at its fastest: pinned in advance, on a copy stream."""
    from diffusers.hooks import apply_group_offloading

    transformer = _transformer(work)
    apply_group_offloading(
        transformer,
        torch.device(work.device),
        torch.device("cpu"),
        offload_type=level,
        num_blocks_per_group=None if level == "leaf_level" else 1,
        use_stream=True,
        record_stream=True,
        non_blocking=True,
        low_cpu_mem_usage=False,
    )
    return transformer


class Streamed:
    """The engine's ``stream``: runs seeds in lockstep, in groups as planned."""

    def __init__(self, work: Work, transformer: Any, stream: Stream, plan: PlacementOption) -> None:
        self._work, self._transformer, self._stream = work, transformer, stream
        self._group = plan.group
        self.predicted = plan.vram

    def __call__(self, seeds: Sequence[int], steps: int) -> list[torch.Tensor]:
        pictures: dict[int, torch.Tensor] = {}

        def one(seed: int) -> None:
            pictures[seed] = call(self._work, self._transformer, [seed], steps)[0]

        for first in range(0, len(seeds), self._group):
            group = seeds[first : first + self._group]
            self._stream.run([partial(one, seed) for seed in group], lambda: None)
        return [pictures[seed] for seed in seeds]

    def close(self) -> None:
        """Wait for copies that are under way: the memory may be given back then."""
        self._stream.close()


def streamed(work: Work, items: int, steps: int) -> Streamed:
    """The transformer as a worker streams it, planned for this limit and number of items."""
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

    on_cpu = work.device == "cpu"
    component = Component(work.model.name, "diffusers:FluxTransformer2DModel")
    files = open_component(work.model.parent, component)
    configs = {"transformer": files.shapes.config, "vae": {"block_out_channels": (128, 256, 512, 512)}}
    upstream = {"prompt_embeds": Encode(prompt="of so many tokens", max_sequence_length=TEXT)}
    sizes = Sizes("bfloat16", kind_of(work.device), configs, upstream=upstream)
    item = diffuse(Diffuse(steps=steps, height=work.side, width=work.side), sizes)
    need = MemoryRequirements(
        (files.shapes,),
        "bfloat16",
        item,
        dict.fromkeys(map(str, range(items)), item),
        has_formula=True,
        on_cpu=on_cpu,
        overheads=overheads_of(work.device, work.context),
    )
    need = need.retaining or need
    limits = Limits("cpu", None, work.limit) if on_cpu else Limits(work.device, work.limit, None)
    placed = next(c for c in candidates(need, limits, None) if c.placement == STREAM)
    loader = ComponentLoader(torch.device(work.device), torch.bfloat16)
    (placement,) = placed.placements.values()
    transformer = loader.load(FluxTransformer2DModel, files, placement)
    if on_cpu:
        retain_freed_memory()

    return Streamed(work, transformer, loader.stream, placed)


def one_by_one(work: Work, transformer: Any) -> Run:
    """Runs seeds one after another."""
    return lambda seeds, steps: [call(work, transformer, [seed], steps)[0] for seed in seeds]


def in_one_batch(work: Work, transformer: Any) -> Run:
    """Runs seeds together, in a plain batch."""
    return lambda seeds, steps: list(call(work, transformer, seeds, steps))


def call(work: Work, transformer: Any, seeds: Sequence[int], steps: int) -> torch.Tensor:
    """A pipeline call for items of these seeds, in one batch: their latents."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipeline = FluxPipeline(scheduler=scheduler, transformer=transformer, **parts)
    pipeline.set_progress_bar_config(disable=True)
    config = transformer.config

    def drawn(seed: int, *shape: int) -> torch.Tensor:
        numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
        return numbers.to(work.device, torch.bfloat16)

    latents: torch.Tensor = pipeline(
        prompt_embeds=torch.cat([drawn(100 + s, 1, TEXT, config.joint_attention_dim) for s in seeds]),
        pooled_prompt_embeds=torch.cat([drawn(200 + s, 1, config.pooled_projection_dim) for s in seeds]),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        num_inference_steps=steps,
        height=work.side,
        width=work.side,
        output_type="latent",
    ).images
    return latents


def hashes(seeds: Sequence[int], pictures: Sequence[torch.Tensor]) -> dict[str, str]:
    """SHA-256 of each picture's numbers, by its seed."""
    numbers = (picture.float().cpu().numpy().tobytes() for picture in pictures)
    return {str(seed): hashlib.sha256(one).hexdigest() for seed, one in zip(seeds, numbers, strict=True)}


def _transformer(work: Work, **options: Any) -> Any:
    return FluxTransformer2DModel.from_pretrained(work.model, torch_dtype=torch.bfloat16, **options)
