"""Versions of what can change the low bits of a result: recorded with it, part of no key."""

from __future__ import annotations

import platform
from importlib import metadata

LIBRARIES = ("stage-runner", "torch", "diffusers", "transformers", "safetensors", "numpy")


def installed_versions(plugin: str) -> dict[str, str]:
    """Installed versions of the libraries and of the plugin's distribution."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*LIBRARIES, plugin)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
