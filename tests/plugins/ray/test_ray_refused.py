"""Clusters that cannot be run on, and nodes of a cluster that are left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from nodes import prompts
from plugins.ray.ray_runs import PLUGIN, Cluster, ray, run

if TYPE_CHECKING:
    from pathlib import Path

    from project import Project

pytest.importorskip("ray")


def test_a_node_without_a_plugin_is_left_out(toy: Project, cluster: Cluster) -> None:
    ray(toy, cluster, prompts(2), nodes=1)
    text = (toy.folder / "ray.toml").read_text()
    packages = json.dumps(toy.environment["PYTHONPATH"])
    toy.write("ray.toml", text.replace(packages, json.dumps(str(PLUGIN.parents[1]))))
    outcome = run(toy)
    assert outcome.code == 4, outcome
    assert "no node can take part:" in outcome.stderr
    assert "stage 'toy.make' is offered by no installed plugin" in outcome.stderr


def test_a_cluster_that_is_not_there_is_reported_of(toy: Project) -> None:
    class Nowhere:
        address = "127.0.0.1:1"

    ray(toy, Nowhere(), prompts(1))  # type: ignore[arg-type]
    outcome = run(toy)
    assert outcome.code == 4, outcome
    assert "executor 'ray': ConnectionError: no Ray cluster answers at 127.0.0.1:1" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_why_agents_cannot_be_started_is_reported(toy: Project, cluster: Cluster) -> None:
    """And the run ends, though more nodes than there are may be waited for."""
    ray(toy, cluster, prompts(1), nodes=1)
    toy.write("ray.toml", f'{(toy.folder / "ray.toml").read_text()}ODD = "\\u0000"\n')
    outcome = run(toy)
    assert outcome.code == 4, outcome
    assert "executor 'ray': RuntimeError: agents cannot be started: " in outcome.stderr
    assert "embedded null byte" in outcome.stderr


HUNG = """
import signal, sys, time
from types import SimpleNamespace
import psutil
from runner_ray.params import Ray
from runner_ray.places import connect

places = connect(Ray(address=sys.argv[1], env={"MARK": sys.argv[2]}), SimpleNamespace(name="hung"))

def one():
    while not (found := places.new()):
        time.sleep(0.1)
    return found[0]

channel = one()
agents = [
    process
    for process in psutil.process_iter(["cmdline"])
    if "runner.remote.agent" in (process.info["cmdline"] or []) and process.environ().get("MARK") == sys.argv[2]
]
for agent in agents:
    agent.send_signal(signal.SIGSTOP)
channel.ended()
channel.close()
print([agent.is_running() for agent in agents])
one().close()
places.close()
"""


def test_an_agent_that_hangs_is_ended_before_its_place_has_another(tmp_path: Path, cluster: Cluster) -> None:
    command = [sys.executable, "-c", HUNG, cluster.address, str(tmp_path)]
    places = os.pathsep.join((str(PLUGIN), str(PLUGIN.parents[1])))
    environment = {**os.environ, "PYTHONPATH": places}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ran.stdout == "[False]\n", ran.stderr
