"""Trains the demo model end to end: `python -m demo_model --out FOLDER`.

Run it again to resume after an interruption.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from . import assemble, distill, drawing, evaluate, prompts, straighten, text, transformer, vae, vocabulary
from .training import Place, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Recipe:
    """The schedule of each part; all of them take about two hours on two cores."""

    vae: Schedule = field(default_factory=lambda: Schedule(4500, 2e-3))
    text: Schedule = field(default_factory=lambda: Schedule(4000, 2e-3, cooling=0.6))
    text_batch: int = 64
    scenes: int = 14_000
    transformer: Schedule = field(default_factory=lambda: Schedule(12_000, 1.5e-3, warm=150))
    distilled: Schedule = field(default_factory=lambda: Schedule(1100, 6e-4, warm=50, cooling=0.7))
    straight: Schedule = field(default_factory=lambda: Schedule(3500, 6e-4, warm=50, cooling=0.7))
    drawings: int = 8_000
    batch: int = 32
    scored: int = prompts.COUNT  # captions

    def parts(self, place: Place, out: Path) -> dict[str, Callable[[], None]]:
        """The parts in order; each needs those before it."""
        return {
            "vocabulary": lambda: vocabulary.train(place),
            "vae": lambda: _train_vae(self.vae, 2 * self.scored, place),
            "text": lambda: text.train(self.text, self.text_batch, place),
            "transformer": lambda: transformer.train(self.transformer, self.batch, self.scenes, place),
            "distill": lambda: distill.train(self.distilled, self.batch, self.scenes, place),
            "straighten": lambda: straighten.train(self.straight, self.batch, self.drawings, place),
            "assemble": lambda: assemble.assemble(place, out),
            "score": lambda: _score(out, self.scored, place),
        }


def run(recipe: Recipe, place: Place, out: Path, only: str | None = None) -> None:
    """Run the parts; a finished one has a marker file and is run again only if ``only`` names it."""
    place.work.mkdir(parents=True, exist_ok=True)
    for name, part in recipe.parts(place, out).items():
        mark = place.result(f"{name}.done")
        if only not in (None, name) or (only is None and mark.exists() and name not in ("assemble", "score")):
            continue
        print(f"{name}:", flush=True)
        part()
        mark.touch()


def _train_vae(plan: Schedule, checked: int, place: Place) -> None:
    vae.train(plan, place)
    share = vae.ceiling(place, checked)
    print(f"ground-truth pictures that are right after the autoencoder: {share:.3f}", flush=True)


def _score(out: Path, count: int, place: Place) -> None:
    prompts_ = prompts.held_out_prompts(count)
    results = evaluate.evaluate(out, drawing.Settings(), place.result("held-out"), prompts_)
    score = evaluate.summary(results)
    print(score, flush=True)
    assemble.write_card(out, score)


def main() -> None:
    """The command line."""
    names = list(Recipe().parts(Place(Path(), torch.device("cpu")), Path()))
    parser = argparse.ArgumentParser(prog="python -m demo_model", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path(".demo-model"), help="unfinished and finished parts"
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint's folder")
    best = torch.accelerator.current_accelerator() or "cpu"
    parser.add_argument("--device", default=str(best), help="torch's name (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads (default: all cores)")
    parser.add_argument("--only", choices=names, help="this part alone")
    parser.add_argument("--go-on-from", type=Path, help="straighten this checkpoint further")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    place = Place(arguments.work, torch.device(arguments.device), arguments.seed)
    if arguments.go_on_from and not place.result("distilled.pt").exists():
        assemble.take_apart(arguments.go_on_from, place)
        for done in names[: names.index("straighten")]:
            place.result(f"{done}.done").touch()
    run(Recipe(), place, arguments.out, arguments.only)


if __name__ == "__main__":
    main()
