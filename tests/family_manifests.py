"""Writes the manifests of families of models, and the table of what they take: ``make manifests NAMES=wan``.

Each is what ``runner new`` makes for a card with 8 GiB and 30 GiB of RAM, from the published configs and shapes
on a hub of our own; the table's least budgets are those that ``runner plan`` still accepts.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import runner_diffusers
import tomli
from described import published
from hub import Hub, Repository
from published_families import FAMILIES, publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/models.md"
TABLE = re.compile(r"(<!-- begin: families -->\n).*?(<!-- end: families -->)", re.DOTALL)
VRAM, RAM = 8 << 10, 30 << 10  # MiB, of the manifests
TEMPLATES = Path(runner_diffusers.__file__).parent / "templates"
FILES = {name: f"{name}_8gb.toml" for name in FAMILIES}
MODELS: dict[str, str] = {
    name: tomli.loads((TEMPLATES / f"{name}.toml").read_text())["model"]["source"] for name in FAMILIES
}


def main(names: list[str]) -> None:
    """Make those of some families, by default all; the table keeps the rows of the others."""
    page = PAGE.read_text()
    made = {}
    names = names or list(FAMILIES)
    with runner_with(names) as run:
        for name in names:
            made[name] = _row(run, name)
    known = {name: row for name in FAMILIES for row in _rows(page) if row[0] == f"`{MODELS[name]}`"}
    rows = [row for name in FAMILIES if (row := made.get(name) or known.get(name))]
    head = [
        "model",
        "parameters",
        "smallest VRAM",
        "smallest RAM",
        "copied to the card each step",
        "manifest",
    ]
    lines = [head, ["---"] * len(head), *rows]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    PAGE.write_text(TABLE.sub(lambda found: f"{found[1]}{table}{found[2]}", page))


def _rows(page: str) -> list[list[str]]:
    """The cells of each line of the page's tables."""
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]


@dataclass(frozen=True)
class Runner:
    """The command, in the clone's folder, with a hub that has the published shapes."""

    environment: Mapping[str, str] = field(repr=False)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
        )

    def plan(self, file: str, vram: int = VRAM, ram: int = RAM) -> dict[str, Any] | None:
        """The plan of a manifest for budgets in MiB; None if it does not fit."""
        budgets = {"vram": f"{vram}MiB", "ram": f"{ram}MiB", "device": "cuda"}
        settings = [part for key, value in budgets.items() for part in ("--set", f"budget.{key}={value}")]
        done = self("plan", f"manifests/{file}", "--json", *settings)
        if done.returncode not in (0, 5):
            raise SystemExit(done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found if done.returncode == 0 else None


@contextmanager
def runner_with(names: Iterable[str]) -> Iterator[Runner]:
    """The command beside a hub with these families."""
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        models = {MODELS[name]: publish(name, folder / name) for name in names}
        served = {model: Repository(published(path)) for model, path in models.items()}
        with Hub(served).served() as hub:
            environment = {
                **os.environ,
                "HF_HOME": str(folder / "hub"),
                "HF_ENDPOINT": hub.url,
                "RUNNER_CACHE": str(folder / "cache"),
            }
            environment.pop("HF_HUB_OFFLINE", None)
            yield Runner(environment)


def _row(run: Runner, name: str) -> list[str]:
    """Write a family's manifest; its row of the table."""
    file = FILES[name]
    made = run(
        *("new", "--model", MODELS[name], "--vram", "8GiB", "--ram", "30GiB", "--force"),
        *("-o", f"manifests/{file}"),
    )
    print(name, made.returncode, made.stderr, flush=True)
    plan = run.plan(file)
    if made.returncode or plan is None:
        raise SystemExit(f"{name}: no manifest that fits")
    vram = _least(lambda size: run.plan(file, vram=size) is not None, VRAM)
    ram = _least(lambda size: run.plan(file, ram=size) is not None, RAM)
    components = {one["name"]: one for stage in plan["stages"] for one in stage["components"]}
    parameters = sum(one["parameters"] for one in components.values())
    moved = max(one["moved"] for one in plan["stages"][1]["components"])
    return [
        f"`{MODELS[name]}`",
        f"{parameters / 1e9:.1f} billion",
        f"{vram / 1024:.1f} GiB",
        f"{ram / 1024:.1f} GiB",
        f"{moved / 1e9:.1f} GB" if moved else "nothing: it stays there",
        f"[{file}](../manifests/{file})",
    ]


def _least(fits: Callable[[int], bool], known: int, step: int = 64) -> int:
    """The least size in MiB that fits, to the next multiple of a step; ``known`` fits."""
    low, high = 0, known // step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle * step) else (middle, high)
    return high * step


if __name__ == "__main__":
    main(sys.argv[1:])
