"""What is known of pipelines is read from source files: nothing heavy is imported for it."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from runner.api import Facts
from model_indexes import facts_of
from runner_diffusers.pipelines import checks, components, params
model = facts_of("WanImageToVideoPipeline")
for stage in ("encode", "denoise", "decode"):
    getattr(components, stage)(model)
    getattr(params, stage)(model)(image="a.png")
list(checks.denoise(params.denoise(model)(image="a.png", prompt="a fox"), Facts()))
heavy = ("torch", "numpy", "diffusers", "transformers", "PIL", "safetensors")
print([name for name in heavy if name in sys.modules])
"""


def test_components_parameters_and_checks_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{PROGRAM}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
