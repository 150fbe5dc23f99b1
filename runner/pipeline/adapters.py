"""The adapters (LoRA) of a manifest that can be used here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from runner.errors import ExitCode
from runner.manifest.loras import loras_of

if TYPE_CHECKING:
    from runner.manifest.load import Manifest
    from runner.manifest.loras import Lora
    from runner.manifest.problems import Problems

LIBRARY, EXTRA = "peft", "pip install 'stage-runner[lora]'"


def usable_loras(manifest: Manifest, problems: Problems) -> tuple[Lora, ...]:
    """The adapters of the manifest; adds a problem for each wrong one, and if their library is absent."""
    found = loras_of(manifest, problems)
    if found and find_spec(LIBRARY) is None:
        where = manifest.where("lora", key=True)
        problems.add(where, f"[[lora]] needs {LIBRARY}, which is not installed: {EXTRA}", ExitCode.PLUGIN)
    return found
