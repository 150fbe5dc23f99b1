"""Runs FLUX.1's three stages by `runner run`, and reads what it reports."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HEAD = """
version = 1
name = "bench"
model = {{ source = "{model}" }}
budget = {{ device = "{device}" }}
run = {{ on_oom = "fail" }}
[batch]
prompts = ["a red fox in the snow", "a harbour town in the rain"]
[[stage]]
name = "encode"
uses = "flux.encode"
dtype = "{encode}"
save_dtype = "bfloat16"
with = {{ max_sequence_length = {text} }}
"""
PICTURES = """
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
with = {{ steps = {steps}, height = {side}, width = {side} }}
[[stage]]
name = "decode"
uses = "flux.decode"
dtype = "bfloat16"
"""


@dataclass(frozen=True)
class Settings:
    """What the stages compute, and where."""

    model: Path
    device: str
    steps: int
    side: int
    text: int = 512
    encode: str = "float32"


@dataclass(frozen=True)
class PipelineRun:
    """A run that has ended."""

    code: int
    error: str
    """Why it failed; empty if it did not."""
    events: list[dict[str, Any]]
    directory: Path

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """The last event of a kind, by stage."""
        return {event["stage"]: event for event in self.events if event["event"] == kind}

    def seconds_an_image_step(self, stage: str) -> float | None:
        """From the end of loading to the last step, by image-steps; None if the stage has no steps."""
        progress = [e for e in self.events if e["event"] == "progress" and e["stage"] == stage]
        ready = self.of("stage_ready").get(stage)
        if not progress or ready is None:
            return None
        return (seconds_of(progress[-1]) - seconds_of(ready)) / len(progress)

    def pictures(self) -> dict[str, str]:
        """SHA-256 of each picture's pixels, by its item."""
        found = {}
        for path in sorted((self.directory / "outputs").glob("*.png")):
            with Image.open(path) as picture:
                item = path.stem.rpartition("-")[0]  # the rest is the start of the result's key
                found[item] = hashlib.sha256(picture.tobytes()).hexdigest()
        return found


def write_manifest(path: Path, settings: Settings, *, encode_only: bool = False) -> None:
    """A manifest of all stages, or of the first one alone."""
    text = HEAD if encode_only else HEAD + PICTURES
    path.write_text(text.format(**vars(settings)))


def run(manifest: Path, name: str, sets: Mapping[str, object]) -> PipelineRun:
    """Run a manifest under a name with settings overridden; run directories lie beside the manifest."""
    command = [sys.executable, "-m", "runner", "run", manifest.name, "--json", "--set", f"name={name}"]
    command += [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(command, cwd=manifest.parent, capture_output=True, text=True, check=False)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    errors = [event["error"] for event in events if event.get("error")]
    error = (errors or done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
    return PipelineRun(done.returncode, error, events, manifest.parent / "runs" / name)


def seconds_of(event: Mapping[str, Any]) -> float:
    """When an event happened, in seconds since the epoch."""
    return datetime.fromisoformat(event["time"]).timestamp()
