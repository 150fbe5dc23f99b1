"""What the supervisor knows of an item's size; and stages whose models' files are not here."""

from __future__ import annotations

import subprocess
import sys
import wave
from typing import TYPE_CHECKING, Any

import pytest
from model_indexes import facts_of
from PIL import Image
from runner_diffusers import memory
from runner_diffusers.memory import stages
from runner_diffusers.pipelines import params

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tiny_cases import Case

PROGRAM = """
import sys
import wave
from runner.api import Sizes
from model_indexes import facts_of
from runner_diffusers import memory
from runner_diffusers.pipelines import params
model = facts_of("FluxPipeline")
memory.encode(params.encode(model)(prompt="a fox"), Sizes("float32", "cpu", model=model))
print([name for name in ("torch", "numpy", "diffusers", "transformers") if name in sys.modules])
"""


def test_formulas_import_no_torch() -> None:
    program = f"import sys; sys.path[:0] = {sys.path!r}\n{PROGRAM}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"prompt": "a cat in the snow"}, True),
        ({"prompt": "a fox in the snow" * 20}, False),
        ({"seed": 8}, True),
        ({"steps": 9}, False),
        ({"height": 128}, False),
        ({"negative_prompt": "blurred"}, False),
    ],
)
def test_items_of_one_size_are_measured_once(
    other: dict[str, Any], same: bool, tiny_case: Callable[..., Case]
) -> None:
    one, another = tiny_case("flux", seed=7), tiny_case("flux", **{"seed": 7, **other})
    found = [memory.denoise(case.denoise, case.sizes(encoded=case.encode)) for case in (one, another)]
    assert (found[0] == found[1]) is same


def test_pictures_count_by_their_size(tiny_case: Callable[..., Case], tmp_path: Path) -> None:
    sizes_of = []
    for name, size, colour in (("a", (48, 40), "red"), ("b", (48, 40), "blue"), ("c", (64, 40), "red")):
        Image.new("RGB", size, colour).save(tmp_path / f"{name}.png")
        case = tiny_case("flux_fill", image=tmp_path / f"{name}.png", mask_image=tmp_path / "a.png")
        sizes_of.append(memory.encode(case.encode, case.sizes()))
    assert sizes_of[0] == sizes_of[1] != sizes_of[2]


def test_sounds_count_by_their_length(tmp_path: Path) -> None:
    stage = params.encode(facts_of("AceStepPipeline", index="StableAudioPipeline"))
    sizes_of = []
    for name, seconds, pitch in (("a", 1, 3), ("b", 1, 5), ("c", 2, 3)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(1)
            file.setframerate(100)
            file.writeframes(bytes(n * pitch % 256 for n in range(100 * seconds)))
        item = stage.model_validate({"prompt": "rain", "src_audio": tmp_path / f"{name}.wav"})
        sizes_of.append(memory.size_of(item))
    assert sizes_of[0] == sizes_of[1] != sizes_of[2]


@pytest.mark.parametrize("name", ["sdxl", "flux", "zimage", "wan21", "hunyuan15"])
def test_configs_alone_give_nearly_the_same(name: str, tiny_case: Callable[..., Case]) -> None:
    """Without the files of tokenizers, a prompt's tokens are counted by its characters."""
    case = tiny_case(name, max_sequence_length=16)
    here, away = (
        stages.denoise(case.denoise, case.sizes(folder=folder, encoded=case.encode))
        for folder in (case.folder, None)
    )
    assert away.peak == pytest.approx(here.peak, rel=0.05)
    assert away.passes == here.passes
