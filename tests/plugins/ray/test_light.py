"""The plugin without Ray: it is light, and a run without it says what is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import pytest
import runner_ray
from pydantic import ValidationError
from runner_ray.params import Ray

from runner.declarations import check_executor

if TYPE_CHECKING:
    from project import Project


def test_the_plugins_module_imports_nothing_heavy() -> None:
    check_executor(runner_ray.runner_executors()[0])
    script = "import sys, runner_ray\nassert not {'ray', 'torch', 'pydantic', 'numpy'} & sys.modules.keys()"
    places = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=places)


def test_the_engine_does_not_know_ray(toy: Project) -> None:
    if any(entry.name == "ray" for entry in metadata.entry_points(group="runner")):
        pytest.skip("runner-ray is installed here")
    outcome = toy.invoke("run", "toy.toml", "--executor", "ray")
    assert outcome.code == 4
    assert "runner-ray" in outcome.stderr


@pytest.mark.parametrize(
    "given",
    [
        *({"nodes": 0}, {"num_gpus": -1}, {"address": ""}, {"gpu": 1}),
        *({"num_gpus": 1.5}, {"num_cpus": float("inf")}, {"resources": {"fast": -1}}),
    ],
)
def test_parameters_are_checked(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Ray.model_validate(given)
