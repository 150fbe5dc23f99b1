"""A short manifest on the demo's weights, with a transformer from elsewhere, and what a plan says of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project import Outcome, Project

MANIFEST = """\
version = 1
name = "small"
[model]
source = "plugin:flux/demo"
[model.components]
{parts}
[budget]
device = "cpu"
threads = 1
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
{diffuse}
[stage.with]
steps = 2
height = 64
width = 64
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a red circle"
seed = 1
"""


def write_small(project: Project, transformer: str = "", diffuse: str = "") -> Project:
    """Write ``small.toml``, with the source of the transformer and more lines of the stage ``diffuse``."""
    parts = f'transformer = "{transformer}"' if transformer else ""
    project.write("small.toml", MANIFEST.format(parts=parts, diffuse=diffuse))
    return project


def diffuse(outcome: Outcome) -> dict[str, Any]:
    """The stage ``diffuse`` of a plan."""
    assert outcome.code == 0, outcome
    (stage,) = (stage for stage in json.loads(outcome.stdout)["stages"] if stage["stage"] == "diffuse")
    found: dict[str, Any] = stage
    return found


def components(outcome: Outcome) -> dict[str, Any]:
    """The components of the plan's stage ``diffuse``, by name."""
    return {component["name"]: component for component in diffuse(outcome)["components"]}


def refused(project: Project, code: int, *words: str) -> None:
    """The plan is refused at a position of the manifest, with these words."""
    outcome = project.invoke("plan", "small.toml")
    assert outcome.code == code, outcome
    assert outcome.stderr.startswith("small.toml:"), outcome
    for word in words:
        assert word in outcome.stderr, outcome
