"""Modules that keep something on themselves from call to call: in lockstep each call finds its own."""

# mypy: disable-error-code="misc,no-any-return"

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from component_loading import place, reference
from diffusers import AutoencoderKLWan
from towers import WIDTH, Tower, as_streamed, make, numbers, together

from runner.placement.loader import ComponentLoader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Keeping(Tower):
    """It adds up what it has seen since it was asked to begin anew; with a buffer, and with what is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sum", torch.zeros(WIDTH), persistent=False)
        self.seen: list[int] = []

    def begin(self) -> None:
        self.sum = torch.zeros(WIDTH)
        self.seen = []

    def forward(self, x: torch.Tensor, path: Iterable[int] | None = None) -> torch.Tensor:
        self.seen.append(len(x))
        self.sum = self.sum + x.sum(0)
        return super().forward(x, path) * len(self.seen) + self.sum


def steps(tower: Keeping, seed: int, count: int) -> torch.Tensor:
    tower.begin()
    x = numbers(seed, seed + 2)
    for _ in range(count):
        x = tower(x)
    return x


def test_each_call_finds_what_it_kept_itself(tmp_path: Path) -> None:
    plain = torch.nn.Module.__setattr__, torch.nn.Module.__init__
    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder, model=Keeping())
    tower.begin()
    before = tower.sum
    alone = [together(stream, [lambda n=n: steps(tower, n, 2 + n % 3)])[0] for n in range(5)]

    side_by_side = together(stream, [lambda n=n: steps(tower, n, 2 + n % 3) for n in range(5)])

    assert all(torch.equal(a, b) for a, b in zip(side_by_side, alone, strict=True))
    # and afterwards all is as it was before
    assert tower.sum is before
    assert tower.seen == []
    assert (torch.nn.Module.__setattr__, torch.nn.Module.__init__) == plain


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small video VAE, which keeps frames on itself for those that follow."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    folder = tmp_path_factory.mktemp("wan") / "vae"
    vae.save_pretrained(folder)
    return folder


def test_videos_decoded_side_by_side_are_those_decoded_alone(wan: Path) -> None:
    worker = ComponentLoader(torch.device("cpu"), torch.float32)
    resident = reference(AutoencoderKLWan, wan, torch.float32)
    streamed = place(
        "stream", AutoencoderKLWan, wan, torch.float32, {"decoder.up_blocks": "disk"}, loader=worker
    )

    def decoded(vae: AutoencoderKLWan, n: int) -> torch.Tensor:
        latents = torch.randn(1, 4, 2 + n % 2, 4, 4 + n, generator=torch.Generator().manual_seed(n))
        return vae.decode(latents).sample

    with torch.inference_mode():
        frames = together(worker.stream, [lambda n=n: decoded(streamed, n) for n in range(3)])
        assert worker.stream.bytes_read > 0
        for n in range(3):
            assert torch.equal(frames[n], decoded(resident, n))


class Making(Tower):
    """Its first call makes a part that later calls use, as libraries make a cache when it is first needed."""

    def forward(self, x: torch.Tensor, path: Iterable[int] | None = None) -> torch.Tensor:
        if not hasattr(self, "part"):
            self.part = Part()
        return super().forward(x, path) + self.part.one


class Part(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = 1.0


def test_a_module_that_one_call_makes_is_for_all(tmp_path: Path) -> None:
    folder = make(tmp_path / "tower")
    tower, stream = as_streamed(folder, model=Making())
    results = together(stream, [lambda n=n: tower(tower(numbers(n))) for n in range(3)])
    for n, result in enumerate(results):
        (alone,) = together(stream, [lambda n=n: tower(tower(numbers(n)))])
        assert torch.equal(result, alone)


class Counting(Tower):
    """Its first call finds no count."""

    def forward(self, x: torch.Tensor, path: Iterable[int] | None = None) -> torch.Tensor:
        self.count = getattr(self, "count", 0) + 1
        return super().forward(x, path) * self.count


def test_what_one_call_sets_first_is_not_there_for_another(tmp_path: Path) -> None:
    tower, stream = as_streamed(make(tmp_path / "tower"), model=Counting())
    results = together(stream, [lambda n=n: tower(tower(numbers(n))) for n in range(3)])
    assert not hasattr(tower, "count")
    for n, result in enumerate(results):
        (alone,) = together(stream, [lambda n=n: tower(tower(numbers(n)))])
        assert torch.equal(result, alone)
