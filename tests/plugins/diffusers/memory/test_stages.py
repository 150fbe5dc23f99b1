"""Fake runs of the stages against real ones: the peak of live tensors, passes and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from runner_diffusers import decode, denoise, encode
from runner_diffusers.memory import stages
from runner_diffusers.memory.counting import Count
from runner_diffusers.memory.fakes import Fakes
from runner_diffusers.memory.stages import FakeContext, MeasuredItem
from runner_diffusers.replay.parts import class_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tiny_cases import Case

    from runner.api import Sizes

CASES: dict[str, dict[str, Any]] = {
    "sd15": {},
    "sdxl": {},
    "sd3": {"max_sequence_length": 16},
    "flux": {"max_sequence_length": 16},
    "qwen": {"true_cfg_scale": 3.0, "negative_prompt": "blurred"},
    "zimage": {"max_sequence_length": 16},
    "klein": {"max_sequence_length": 16, "text_encoder_out_layers": (1, 2, 2)},
    "chroma": {"max_sequence_length": 16},
    "auraflow": {},
    "flux_fill": {"max_sequence_length": 16, "image": "picture", "mask_image": "picture"},
    "wan21": {"max_sequence_length": 16},
    "wan_i2v": {"max_sequence_length": 16, "image": "picture"},
    "ltx": {"max_sequence_length": 16},
    "cogvideox": {"max_sequence_length": 16},
    "hunyuan15": {},
}


class RealContext(FakeContext):
    """Loads the weights too."""

    def load(self, component: str) -> Any:
        folder = self._folder(component)
        loaded = class_of(self._components[component].cls).from_pretrained(folder)
        if isinstance(loaded, torch.nn.Module):
            self.weights.append(loaded.to(self.dtype_of(component)))
        return loaded

    def __init__(self, sizes: Sizes, stage: str) -> None:
        super().__init__(sizes, Fakes(sizes), stage)
        self.weights: list[torch.nn.Module] = []


def real(sizes: Sizes, stage: str, start: Any, item: MeasuredItem) -> tuple[Count, Any]:
    """A count of a stage's tensors beside its weights, with the kernels' workspaces; and what it made."""
    with torch.inference_mode():
        context = RealContext(sizes, stage)
        compute = start(context)
        inputs = [tensor for bundle in item.inputs.values() for tensor in bundle.tensors.values()]
        with Count(sizes, context.weights, inputs) as count:
            made = compute(item)
    return count, made


@pytest.mark.parametrize("name", CASES)
def test_peaks_are_those_of_real_tensors(name: str, tiny_case: Callable[..., Case]) -> None:
    case = tiny_case(name, **CASES[name])
    sizes = case.sizes(folder=case.folder)
    encoding, encoded = real(sizes, "encode", encode.start, MeasuredItem(case.encode))
    inputs = {"encoded": encoded["encoded"]}
    denoising, denoised = real(sizes, "denoise", denoise.start, MeasuredItem(case.denoise, inputs))
    inputs |= denoised
    decoding, _ = real(sizes, "decode", decode.start, MeasuredItem(case.decode, inputs))

    upstream = {"encoded": case.encode, "denoised": case.denoise}
    measured = {
        "encode": (stages.encode(case.encode, case.sizes(folder=case.folder)).peak, encoding.peak),
        "denoise": (
            stages.denoise(case.denoise, case.sizes(folder=case.folder, encoded=case.encode)).peak,
            denoising.peak,
        ),
        "decode": (
            stages.decode(case.decode, case.sizes(folder=case.folder, **upstream)).peak,
            decoding.peak + decoding.in_heap_peak,
        ),
    }
    for stage, (found, expected) in measured.items():
        # the positions of Qwen2.5-VL's tokens weigh as much as a tiny model's numbers
        assert found == pytest.approx(expected, rel=0.1 if (name, stage) == ("qwen", "encode") else 0.03)


def test_passes_tokens_and_what_waits(tiny_case: Callable[..., Case]) -> None:
    case = tiny_case("flux", max_sequence_length=16, steps=3, true_cfg_scale=2.0, negative_prompt="blurred")
    found = stages.denoise(case.denoise, case.sizes(folder=case.folder, encoded=case.encode))
    assert found.passes == 3 * 2
    assert found.suspended is not None
    assert 0 < found.suspended < found.peak
    text, picture = 16, 16 * 16
    assert 0.3 * (text + picture) < found.tokens < 2 * (text + picture)


def test_two_transformers_share_the_passes(tiny_case: Callable[..., Case]) -> None:
    case = tiny_case("wan22", max_sequence_length=16, steps=4)
    found = stages.denoise(case.denoise, case.sizes(folder=case.folder, encoded=case.encode))
    assert found.passes == 4  # two a step, each through half of the weights


def test_smaller_tiles_need_less(tiny_case: Callable[..., Case]) -> None:
    peaks = []
    for tiling in ("off", 128, 64):
        case = tiny_case("flux", height=256, width=256, max_sequence_length=16, tiling=tiling)
        upstream = {"encoded": case.encode, "denoised": case.denoise}
        peaks.append(stages.decode(case.decode, case.sizes(folder=case.folder, **upstream)).peak)
    assert peaks[0] > 1.5 * peaks[1] > 1.5 * peaks[2]
