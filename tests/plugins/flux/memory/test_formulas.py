"""The formulas, as the plan calls them."""

from __future__ import annotations

import subprocess
import sys

import runner_flux

from runner.plugins import load_object


def test_the_formulas_are_the_stages_and_import_no_torch() -> None:
    for stage in runner_flux.runner_stages():
        assert callable(load_object(stage.memory))
    heavy = "{'torch', 'numpy', 'diffusers', 'transformers'}"
    program = f"import sys, runner_flux.memory; sys.exit(bool({heavy} & set(sys.modules)))"
    folder = runner_flux.__file__.rpartition("runner_flux")[0]
    assert subprocess.run([sys.executable, "-c", program], cwd=folder, check=False).returncode == 0
