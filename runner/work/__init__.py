"""What a run of a manifest must do, and why: models, checks, keys, demand; and which files may be removed."""

ALL_STAGES = "*"
"""The value of ``--fresh`` without a stage."""
