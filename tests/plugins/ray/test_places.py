"""How many agents a node has room for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from runner_ray.params import Ray

pytest.importorskip("ray")


@pytest.mark.parametrize(
    ("given", "node", "agents"),
    [
        ({}, {"CPU": 8.0}, 1),  # one for the machine
        ({}, {"CPU": 0.0}, 0),
        ({"num_gpus": 1}, {"CPU": 8.0, "GPU": 4.0}, 4),
        ({"num_gpus": 1}, {"CPU": 8.0}, 0),
        ({"num_gpus": 1, "num_cpus": 4}, {"CPU": 8.0, "GPU": 4.0}, 2),
        ({"num_gpus": 0.5, "num_cpus": 0}, {"GPU": 1.0}, 2),
        ({"resources": {"fast": 1}}, {"CPU": 8.0}, 0),
        ({"resources": {"fast": 1}}, {"CPU": 8.0, "fast": 2.0}, 1),
    ],
)
def test_room(given: dict[str, Any], node: dict[str, float], agents: int) -> None:
    from runner_ray.places import RayPlaces

    watch: Any = SimpleNamespace()
    assert RayPlaces(Ray.model_validate(given), watch)._devices(node) == agents
