"""A Ray cluster of several nodes on this machine, and runs of the toy's stages on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodes import BEHAVING, SENT, digests
from toy_plugin import STAGES

if TYPE_CHECKING:
    from project import Outcome, Project

HERE = Path(__file__).parent
PLUGIN = HERE.parents[2] / "plugins/ray"
WAITING = '[[item]]\nid = "slow"\nprompt = "slow"\nbehave = "wait"\n'


class Cluster:
    """A cluster in a process of its own."""

    def __init__(self, nodes: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "ray_cluster.py"), str(nodes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        self.address: str = self._answer()

    def tell(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def ray(project: Project, cluster: Cluster, items: str, **parameters: Any) -> None:
    """Install the plugins, and write ``toy.toml`` and ``ray.toml``: the same, for here and for the cluster."""
    project.plugin("toy", BEHAVING)
    info = "packages/runner_ray-0.1.dist-info"
    project.write(f"{info}/METADATA", "Metadata-Version: 2.1\nName: runner-ray\nVersion: 0.1\n")
    project.write(f"{info}/entry_points.txt", "[runner]\nray = runner_ray\n")
    project.environment["PYTHONPATH"] += os.pathsep + str(PLUGIN)
    names = ("PYTHONPATH", "RUNNER_CACHE", "TOY_FLAGS", "PYTHONDONTWRITEBYTECODE")
    env = {name: project.environment[name] for name in names} | SENT
    given = {"uses": "ray", "address": cluster.address, "nodes": 3, **parameters}
    lines = [f"{name} = {json.dumps(value)}" for name, value in given.items()]
    lines += ["[executor.env]", *(f"{name} = {json.dumps(value)}" for name, value in env.items())]
    project.write("toy.toml", STAGES + items)
    project.write("ray.toml", STAGES + items + "[executor]\n" + "\n".join(lines) + "\n")


def local(project: Project) -> dict[str, str]:
    """What a run on this machine leaves; it is moved away."""
    (project.folder / "flags/slow.go").touch()
    outcome = project.runner("run", "toy.toml")
    assert outcome.code == 0, outcome
    found = digests(project.folder / "runs/toy")
    (project.folder / "runs").rename(project.folder / "local")
    for flag in (project.folder / "flags").iterdir():
        flag.unlink()
    return found


def run(project: Project) -> Outcome:
    return project.runner("run", "ray.toml", "--json", seconds=150)
