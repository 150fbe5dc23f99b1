"""What ``import torch`` calls, for this is installed with an entry point in ``torch.backends``."""

from __future__ import annotations

import os


def autoload() -> None:
    """Load the device if the environment asks for it: elsewhere torch is to look as if it were not installed."""
    if os.environ.get("RUNNER_ACCELERATOR") == "sim":
        import torch_sim  # noqa: F401 - registers the device
