"""What there is to do for a manifest, and why: models, keys, demand, what may be removed."""

ALL_STAGES = "*"
"""What ``--fresh`` without a stage stands for."""
