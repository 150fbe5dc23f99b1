"""The script end to end, in seconds: a checkpoint that loads, the same after an interruption."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from demo_model import training, vocabulary
from demo_model.__main__ import Recipe, run
from demo_model.captions import write_caption
from demo_model.scenes import draw_scene
from demo_model.training import Place, Schedule
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

TINY = Recipe(
    vae=Schedule(3, 1e-3),
    text=Schedule(3, 1e-3),
    text_batch=4,
    scenes=8,
    transformer=Schedule(4, 1e-3),
    distilled=Schedule(3, 1e-3),
    straight=Schedule(3, 1e-3),
    drawings=4,
    batch=4,
    scored=1,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny training's folder: work, and out."""
    torch.set_num_threads(1)  # at these sizes more threads only wait for each other
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNNER_CACHE", str(folder / "cache"))
        run(TINY, _place(folder), folder / "out")
    return folder


def _place(folder: Path) -> Place:
    return Place(folder / "work", torch.device("cpu"), seed=3, save_every=0)


def test_the_checkpoint_draws_and_is_scored(trained: Path) -> None:
    (drawn,) = (trained / "work/held-out/runs/held-out/outputs").glob("*.png")
    with Image.open(drawn) as picture:
        assert picture.size == (128, 128)
    assert "of 1" in (trained / "out/README.md").read_text()
    parts = {path.name for path in (trained / "out").iterdir()}
    assert parts == {
        "README.md", "model_index.json", "scheduler", "text_encoder", "text_encoder_2", "tokenizer",
        "tokenizer_2", "transformer", "vae",
    }  # fmt: skip
    assert sum(path.stat().st_size for path in (trained / "out").rglob("*")) < 15e6


@pytest.mark.parametrize("part", ["vae", "transformer", "distilled"])
def test_an_interruption_changes_nothing(
    trained: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    work = tmp_path / "work"
    _copy_finished(trained / "work", work, before=part)
    real = training._save

    def save_and_stop(path: Path, *state: object) -> None:
        real(path, *state)  # type: ignore[arg-type]
        if path.name.startswith(part) and state[-1] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "_save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            run(TINY, _place(tmp_path), tmp_path / "out")
    run(TINY, _place(tmp_path), tmp_path / "out")
    for path in (trained / "out").rglob("*.safetensors"):
        again = tmp_path / "out" / path.relative_to(trained / "out")
        assert path.read_bytes() == again.read_bytes(), path.name


def _copy_finished(source: Path, target: Path, before: str) -> None:
    """What stood before a part began, so that the others need not be trained again."""
    shutil.copytree(source, target)
    order = ["vae", "text", "transformer", "distilled"]
    for later in order[order.index(before) :]:
        mark = "distill" if later == "distilled" else later
        for name in (f"{later}.state.pt", f"{later}.pt", f"{mark}.done"):
            (target / name).unlink(missing_ok=True)
    if before == "vae":
        for pool in target.glob("pool-*"):
            pool.unlink()


def test_a_finished_part_is_not_trained_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(TINY, _place(trained), trained / "out")
    assert "transformer" not in capsys.readouterr().out


def test_captions_round_trip_through_the_tokenizers(trained: Path, rng: np.random.Generator) -> None:
    clip, t5 = vocabulary.load(_place(trained))
    assert clip.eos_token_id == len(clip) - 1
    for index in range(200):
        text = write_caption(draw_scene(rng, for_scoring=index % 2 == 0), rng).text
        said = text.lower()
        assert t5.decode(t5(text).input_ids, skip_special_tokens=True) == said
        assert clip.decode(clip(text).input_ids, skip_special_tokens=True).replace(" .", ".") == said
        words = len(said.replace(".", " .").split())
        assert len(t5(text).input_ids) == words + 1  # every word is one token
        assert len(clip(text).input_ids) == words + 2


def test_words_that_no_caption_has_are_spelled(trained: Path) -> None:
    clip, t5 = vocabulary.load(_place(trained))
    for tokenizer in (clip, t5):
        assert "xylophone" in tokenizer.decode(tokenizer("a red xylophone").input_ids)


def test_tokenizers_are_the_same_by_seed(trained: Path, tmp_path: Path) -> None:
    vocabulary.train(_place(tmp_path))
    for name in ("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/spiece.model"):
        assert (tmp_path / "work" / name).read_bytes() == (trained / "work" / name).read_bytes()


def test_nothing_says_where_it_was_trained(trained: Path) -> None:
    for path in (trained / "out").rglob("*.json"):
        assert str(trained) not in path.read_text(), path
