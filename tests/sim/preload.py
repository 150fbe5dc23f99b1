"""Imported by the process that the simulation's processes are forked from."""

import torch_sim  # noqa: F401
