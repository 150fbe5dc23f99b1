"""Versions of what can change the low bits of a result: recorded with it, part of no key."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runner.api import Stage

LIBRARIES = ("stage-runner", "torch", "diffusers", "transformers", "safetensors", "numpy")


def versions_of(stage: Stage) -> dict[str, str]:
    """Installed versions of the libraries and of the distribution that the stage's code is from."""
    package = stage.start.partition(".")[0].partition(":")[0]
    own = metadata.packages_distributions().get(package, [])
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*LIBRARIES, *own)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
