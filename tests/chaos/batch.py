"""The demo batch of 24 items that faults are tried on, and what must be true of it after all of them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from project import Project

from runner.events import ItemFinished
from runner.rundir.journal import read_journal
from runner.rundir.lock import held_by

Order = tuple[str, int, list[str]]
"""A moment, the how manieth time it is, and who is ended with what: "worker KILL"."""
EVERY = 2  # steps between saved states
STAGES = ("encode", "diffuse", "decode")
PLACED = [word for stage in STAGES for word in ("--set", f"stage.{stage}.placement=stream")]
VARIANTS = {"resident": [], "streamed": PLACED, "needed": ["--set", "run.keep_handoffs=needed"]}

MANIFEST = f"""
version = 1
name = "demo"
[model]
source = "plugin:flux/demo"
[budget]
device = "cpu"
threads = 1
[run]
checkpoint_every = {EVERY}
[[stage]]
name = "encode"
uses = "flux.encode"
save_dtype = "bfloat16"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
[[stage]]
name = "decode"
uses = "flux.decode"
[batch]
file = "items.jsonl"
"""
PROMPTS = ("a red circle", "a blue square", "a green star", "a white heart on a black background")


def items() -> list[dict[str, Any]]:
    """Prompts that share an embedding, sizes and steps that differ, and two ids for one and the same picture."""
    found = [
        {
            "id": f"item-{n:02}",
            "prompt": PROMPTS[n % 4] if n % 3 else f"a star, the {n}th",
            "seed": n,
            "steps": 1 + n % 7,
            "height": 16 * (1 + n % 3),
            "width": 16 * (1 + n % 4),
        }
        for n in range(23)
    ]
    return [*found, {**found[10], "id": "twin-of-10"}]


class Batch(Project):
    """A project with the batch, and a saboteur in each of its processes."""

    def __init__(self, folder: Path, variant: str = "resident") -> None:
        super().__init__(folder)
        self.variant = variant
        self.write("demo.toml", MANIFEST)
        self.write("items.jsonl", "".join(f"{json.dumps(item)}\n" for item in items()))
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.environment["PYTHONPATH"] = str(Path(__file__).with_name("sabotage"))
        self.environment["SABOTAGE"] = str(self.notes)

    @property
    def run(self) -> Path:
        return self.folder / "runs/demo"

    @property
    def command(self) -> list[str]:
        return ["run", "demo.toml", "--json", *VARIANTS[self.variant]]

    def order(self, orders: list[Order]) -> None:
        """Have processes ended at moments: see ``sabotage/sitecustomize.py``."""
        (self.notes / "orders.json").write_text(json.dumps(orders))

    def noted(self, name: str) -> list[str]:
        """What the saboteurs have noted."""
        path = self.notes / name
        return path.read_text().splitlines() if path.exists() else []

    def groups(self) -> dict[str, int]:
        """How many items each stage has under way at once."""
        plan = self.runner("plan", *self.command[1:])
        assert plan.code == 0, plan
        return {stage["stage"]: stage["group"] for stage in json.loads(plan.stdout)["stages"]}


def made(run: Path) -> dict[str, bytes]:
    """All that a run leaves for people and for later stages."""
    paths = (path for part in ("outputs", "handoff") for path in (run / part).rglob("*"))
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.is_file()}


def check_end(batch: Batch, reference: dict[str, bytes]) -> None:
    """A batch that was run to its end, whatever came between, has all it should have, and nothing else."""
    if batch.variant == "needed":
        reference = {name: data for name, data in reference.items() if name.startswith("outputs")}
    found = made(batch.run)
    assert set(found) ^ set(reference) == set()
    assert [name for name, data in found.items() if data != reference[name]] == []
    left = [path for path in batch.run.rglob("*") if path.name.endswith(".tmp")]
    left += [path for path in batch.run.glob("state/**/*") if path.is_file()]
    assert left == []
    assert held_by(batch.run / ".lock") is None
    done = Counter(
        (event.stage, event.item)
        for event in read_journal(batch.run / "journal.jsonl")
        if isinstance(event, ItemFinished) and not event.failed
    )
    assert [name for name, times in done.items() if times > 1] == []
    again = batch.runner(*batch.command)
    assert again.code == 0, again
    assert again.of("stage_started") == [], again


def check_work(batch: Batch, groups: dict[str, int]) -> None:
    """No more was done again than what was in flight, and of that no more than the steps since a saved state."""
    done: set[tuple[str, str]] = set()
    last: dict[tuple[str, str], int] = {}
    in_flight: dict[int, set[str]] = defaultdict(set)
    begins: set[tuple[str, str]] = set()
    for line in batch.noted("trace"):
        event = json.loads(line)
        name = (event["stage"], event.get("item", ""))
        if event["event"] == "item_started":
            assert name not in done, f"{name} was made twice"
            begins.add(name)
            in_flight[event["pid"]].add(event["item"])
            assert len(in_flight[event["pid"]]) <= groups[event["stage"]]
        elif event["event"] == "progress":
            if name in begins:
                assert event["step"] > last.get(name, 0) - EVERY, f"{name} went back to {event['step']}"
                begins.remove(name)
            last[name] = event["step"]
        elif event["event"] == "item_finished":
            in_flight[event["pid"]].remove(event["item"])
            if event["status"] == "done":
                done.add(name)
