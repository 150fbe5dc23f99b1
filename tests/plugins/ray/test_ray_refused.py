"""Clusters that cannot be run on, and nodes of a cluster that are left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from nodes import prompts
from plugins.ray.ray_runs import PLUGIN, Cluster, ray, run

if TYPE_CHECKING:
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
