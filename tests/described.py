"""Hub models described in a process of its own, and a model of the published size to describe."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import runner_flux
from hub import Sparse
from project import Outcome

from runner.model.files import open_component

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from project import Project

MODEL = "some-lab/tiny-flux"
VAE = "vae/diffusion_pytorch_model.safetensors"
# the client reads its settings when it is imported: a process for each call
CALL = """
import json, sys, types
import runner_flux
from runner.errors import RunnerError
from runner.manifest.schema import ModelSource
from runner.model.hub import snapshots
from runner.model.hub.headers import describe

source = ModelSource(source=sys.argv[2], revision=sys.argv[3] or None)
try:
    if sys.argv[1] == "download":
        quiet = types.SimpleNamespace(fetching=lambda *_: None, warning=lambda *_: None)
        snapshots.download(source, [c for s in runner_flux.runner_stages() for c in s.components], quiet)
    reported = [describe(source, stage.components) for stage in runner_flux.runner_stages()]
except RunnerError as error:
    print(error, file=sys.stderr)
    raise SystemExit(error.exit_code)
assert "torch" not in sys.modules
plain = [{n: [{w: vars(t) for w, t in s.tensors.items()}, dict(s.config)] for n, s in c.items()} for c in reported]
print(json.dumps(plain))
"""


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALL, *arguments],
        cwd=project.folder,
        env=project.environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def call(project: Project, function: str, revision: str = "", source: str = MODEL) -> Outcome:
    arguments = [function, source, revision]
    with start(project, *arguments) as process:
        stdout, stderr = process.communicate(timeout=100)
    return Outcome(arguments, process.returncode, stdout, stderr)


def describe(project: Project, revision: str = "", source: str = MODEL) -> Outcome:
    return call(project, "describe", revision, source)


def opened(folder: Path) -> list[dict[str, Any]]:
    """What the same folder tells on this machine."""
    plain = []
    for stage in runner_flux.runner_stages():
        assert not isinstance(stage.components, str)
        shapes = {c.name: open_component(folder, c).shapes for c in stage.components}
        plain.append(
            {n: [{w: vars(t) for w, t in s.tensors.items()}, s.config] for n, s in shapes.items()},
        )
    reported: list[dict[str, Any]] = json.loads(json.dumps(plain))
    return reported


def weight_file(tables: Mapping[str, Any]) -> bytes:
    raw = json.dumps(tables).encode()
    return struct.pack("<Q", len(raw)) + raw


def long_header(tensors: int, data: int = 4) -> tuple[bytes, int]:
    """The start of a weight file, and its size."""
    named = {f"{n:0100}": [n * data, (n + 1) * data] for n in range(tensors)}
    tables = {
        name: {"dtype": "F32", "shape": [data // 4], "data_offsets": ends} for name, ends in named.items()
    }
    head = weight_file(tables)
    return head, len(head) + tensors * data


def published(folder: Path) -> dict[str, bytes | Sparse]:
    """A folder's files by their paths, as a repository on the hub has them; zeros for weights."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): _sparse(path)
        if path.suffix == ".safetensors"
        else path.read_bytes()
        for path in paths
    }


def _sparse(path: Path) -> Sparse:
    with path.open("rb") as file:
        prefix = file.read(8)
        return Sparse(prefix + file.read(*struct.unpack("<Q", prefix)), path.stat().st_size)
