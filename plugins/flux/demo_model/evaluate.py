"""Scores a checkpoint: `python -m demo_model.evaluate CHECKPOINT` draws held-out captions and judges them."""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .captions import read_caption
from .drawing import Settings, draw
from .prompts import COUNT, Prompt, held_out_prompts
from .scenes import CANVASES, UNSEEN_KINDS, Scene
from .scorer import Verdict, judge
from .sheet import contact_sheet

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .scenes import Picture

SIZES = {f"{width}x{height}": (height, width) for height, width in CANVASES}


@dataclass(frozen=True)
class Judged:
    """A prompt, its picture, and the verdict."""

    prompt: Prompt
    picture: Picture
    verdict: Verdict


def evaluate(checkpoint: Path, settings: Settings, folder: Path, prompts: Sequence[Prompt]) -> list[Judged]:
    """Draw the prompts in `folder` and judge each picture."""
    pictures = draw(checkpoint, settings, folder, prompts)
    return [
        Judged(prompt, picture, judge(picture, read_caption(prompt.prompt)))
        for prompt, picture in zip(prompts, pictures, strict=True)
    ]


def summary(results: Sequence[Judged]) -> str:
    """The score: in total, by criterion, by kind of scene; then the pictures that are wrong."""
    verdicts = [result.verdict for result in results]
    lines = [f"fully right: {sum(verdict.right for verdict in verdicts)} of {len(results)}"]
    kinds = (f"{kind} {sum(getattr(verdict, kind) for verdict in verdicts)}" for kind in Verdict.kinds())
    lines.append("by what is right: " + ", ".join(kinds))
    groups = defaultdict(list)
    for result in results:
        for group in _groups(read_caption(result.prompt.prompt)):
            groups[group].append(result.verdict.right)
    lines.append("by scene: " + ", ".join(f"{name} {sum(r)}/{len(r)}" for name, r in sorted(groups.items())))
    for result in results:
        if not result.verdict.right:
            wrong = [kind for kind in Verdict.kinds() if not getattr(result.verdict, kind)]
            lines.append(f"wrong {', '.join(wrong)}: {result.prompt.id} {result.prompt.prompt!r}")
    return "\n".join(lines)


def _groups(scene: Scene) -> Iterable[str]:
    yield "one thing" if len(scene.things) == 1 else "two things"
    yield scene.where
    unseen = any((thing.colour, thing.shape) in UNSEEN_KINDS for thing in scene.things)
    yield "with a colour-shape pair never drawn" if unseen else "other"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m demo_model.evaluate", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a folder in FLUX layout")
    parser.add_argument("--folder", type=Path, default=Path(".demo-model/held-out"), help="where to draw")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--steps", type=int, default=Settings.steps)
    parser.add_argument("--guidance", type=float, default=Settings.guidance)
    parser.add_argument("--size", choices=list(SIZES), default="128x128", help="width x height")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of the first 20 pictures there")
    arguments = parser.parse_args()
    settings = Settings(arguments.steps, arguments.guidance, SIZES[arguments.size])
    results = evaluate(arguments.checkpoint, settings, arguments.folder, held_out_prompts(arguments.count))
    print(summary(results))
    if arguments.sheet:
        contact_sheet([(result.picture, result.prompt.prompt) for result in results[:20]]).save(
            arguments.sheet
        )


if __name__ == "__main__":
    main()
