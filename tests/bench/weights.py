"""FLUX blocks at their full width in bfloat16 and quantised: peaks, bytes and seconds an image-step.

``python tests/bench/weights.py [FOLDER [FORM ...]]``: a transformer of 2 double and 2 single blocks (2 GB in bfloat16), one
step of a picture of 256 x 256, resident and streamed. Each form is run in turn, ``ROUNDS`` times, and times are
medians: the machine may have other work.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bitsandbytes_weights import config_of, write_quantised
from checkpoints import make_flux
from diffusers import FluxTransformer2DModel
from large import make_transformer
from project import Project
from single_files import weights_of, write_gguf

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS, STEPS, SIZE = 3, 2, 256
BITSANDBYTES = {"NF4": "nf4 double", "LLM.int8": "LLM.int8"}
FORMS = ("bfloat16", "Q8_0", "int8", "fp8", *BITSANDBYTES)
MANIFEST = f"""\
version = 1
name = "wide"
[model]
source = "./model"
[budget]
device = "cpu"
[[stage]]
name = "encode"
uses = "flux.encode"
[stage.with]
max_sequence_length = 16
[[stage]]
name = "diffuse"
uses = "flux.diffuse"
dtype = "bfloat16"
[stage.with]
steps = {STEPS}
height = {SIZE}
width = {SIZE}
[[stage]]
name = "decode"
uses = "flux.decode"
[[item]]
prompt = "a red circle"
"""


def prepared(folder: Path, forms: Sequence[str]) -> Project:
    project = Project(folder)
    project.environment["RUNNER_CACHE"] = str(folder / "cache")
    model = make_flux(folder / "model", text=(768, 4096))
    shutil.rmtree(model / "transformer")
    make_transformer(model / "transformer", double=2, single=2)
    plain = model / "transformer"
    if "Q8_0" in forms:
        write_gguf(folder / "transformer.gguf", weights_of(plain), "Q8_0")
    for form in BITSANDBYTES.keys() & {*forms}:
        config = config_of(BITSANDBYTES[form])
        write_quantised(plain, folder / form, FluxTransformer2DModel, config, torch.bfloat16)
    project.write("wide.toml", MANIFEST)
    return project


def sets_of(form: str, placement: str) -> Sequence[str]:
    """The command-line options of a run."""
    sets = [f"stage.diffuse.placement={placement}"]
    if form == "Q8_0":
        sets.append("model.components.transformer=./transformer.gguf")
    elif form in BITSANDBYTES:
        sets.append(f"model.components.transformer=./{form}")
    elif form != "bfloat16":
        sets.append(f"stage.diffuse.quantize={form}")
    return [word for one in sets for word in ("--set", one)]


def measured(project: Project, form: str, placement: str) -> dict[str, Any]:
    """Of the stage ``diffuse``: peaks in bytes, bytes read, and seconds an image-step."""
    outcome = project.runner("run", "wide.toml", "--json", "--fresh", "diffuse", *sets_of(form, placement))
    assert outcome.code == 0, outcome
    (stage,) = (event for event in outcome.of("stage_finished") if event["stage"] == "diffuse")
    (item,) = (event for event in outcome.of("item_finished") if event["stage"] == "diffuse")
    return {
        "predicted": stage["predicted"]["ram"],
        "measured": stage["measured"]["ram"],
        "read": (stage["streamed"] or {}).get("read", 0),
        "seconds": item["seconds"] / STEPS,
    }


def planned_bytes(project: Project, form: str) -> int:
    """What a pass of the streamed transformer reads, by the plan."""
    plan = project.runner("plan", "wide.toml", "--json", *sets_of(form, "stream"))
    (stage,) = (one for one in json.loads(plan.stdout)["stages"] if one["stage"] == "diffuse")
    read: int = stage["components"][0]["read"]
    return read


def main() -> None:
    forms = sys.argv[2:] or FORMS
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        os.environ["RUNNER_TESTS_SHARED"] = folder  # where projects of tests keep what they share
        project = prepared(Path(folder), forms)
        runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for _ in range(ROUNDS):
            for placement in ("resident", "stream"):
                for form in forms:
                    runs.setdefault((form, placement), []).append(measured(project, form, placement))
        for (form, placement), found in runs.items():
            last, seconds = found[-1], median(one["seconds"] for one in found)
            peak = max(one["measured"] for one in found)
            print(
                f"{form:<9} {placement:<8} predicted {last['predicted'] >> 20:5} MiB, measured {peak >> 20:5} MiB "
                f"({last['predicted'] / peak:.3f}), read {last['read'] >> 20:5} MiB, "
                f"{seconds:6.2f} s an image-step",
                flush=True,
            )
        for form in forms:
            print(f"{form:<9} bytes a pass {planned_bytes(project, form):,}")


if __name__ == "__main__":
    main()
