"""Denoising that was interrupted goes on from its last saved latents, and draws the same picture to the bit."""

from __future__ import annotations

import json

import psutil
import pytest
from project import Project

MANIFEST = """
version = 1
name = "resumed"
[model]
source = "plugin:flux/demo"
[budget]
device = "cpu"
threads = 1
[run]
checkpoint_every = 3
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 64
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
placement = "{placement}"
[stage.with]
steps = 14
height = 64
width = 96
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a red circle"
seed = 1
[[item]]
prompt = "a blue star"
negative_prompt = "black"
true_cfg_scale = 2.0
steps = 5
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs of a run that nothing interrupts."""
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    project.write("flux.toml", MANIFEST.format(placement="resident"))
    outcome = project.runner("run", "flux.toml")
    assert outcome.code == 0, outcome
    return project.outputs("resumed")


@pytest.mark.parametrize("placement", ["resident", "stream"])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    project: Project, undisturbed: dict[str, bytes], placement: str
) -> None:
    project.write("flux.toml", MANIFEST.format(placement=placement))
    process = project.start("run", "flux.toml", "--json")
    assert process.stdout is not None
    events = map(json.loads, process.stdout)
    killed = next(e for e in events if e["event"] == "progress" and e["steps"] == 14 and e["step"] == 8)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    psutil.wait_procs(children, timeout=10)

    outcome = project.runner("run", "flux.toml", "--json")

    assert outcome.code == 0, outcome
    steps = [e["step"] for e in outcome.of("progress") if e["item"] == killed["item"]]
    # it may have come a little further between being seen and being killed
    assert steps[0] % 3 == 1
    assert steps[0] >= 7
    assert steps == list(range(steps[0], 15))
    assert project.outputs("resumed") == undisturbed
