"""From a manifest to what must be done, computed before anything heavy starts."""

ALL_STAGES = "*"
"""What ``--fresh`` without a stage stands for."""
