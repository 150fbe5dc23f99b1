"""Where agents may be: the places that a cluster's nodes have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from runner_ray.params import Ray

if TYPE_CHECKING:
    from runner_ray.places import RayPlaces

pytest.importorskip("ray")


def places(given: dict[str, Any], nodes: list[dict[str, Any]]) -> RayPlaces:
    from runner_ray.places import RayPlaces

    watch: Any = SimpleNamespace(nodes=lambda: nodes)
    return RayPlaces(Ray.model_validate(given), watch)


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
def test_what_a_node_has_room_for(given: dict[str, Any], node: dict[str, float], agents: int) -> None:
    assert places(given, [])._devices(node) == agents


def node(name: str, host: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    id_ = name * 10
    address = {"NodeManagerHostname": host, "NodeManagerAddress": host}
    return {"NodeID": id_, "Alive": alive, "Resources": {"CPU": 8.0, **resources}, **address}


def test_places_come_and_go_with_their_nodes_and_share_their_machines() -> None:
    nodes = [node("a", "one", GPU=2.0), node("b", "one", GPU=1.0), node("c", "two", GPU=1.0)]
    found = places({"num_gpus": 1}, nodes)
    found._look()
    names = [place.name for place in found._places.values()]
    assert names == ["one-aaaaaa-0", "one-aaaaaa-1", "one-bbbbbb-0", "two-cccccc-0"]
    assert list(found._shares.values()) == [3, 3, 1]
    nodes[1] = node("b", "one", alive=False, GPU=1.0)
    nodes.append(node("d", "two", GPU=1.0))
    found._look()
    names = [place.name for place in found._places.values()]
    assert names == ["one-aaaaaa-0", "one-aaaaaa-1", "two-cccccc-0", "two-dddddd-0"]
    assert list(found._shares.values()) == [2, 2, 2]
