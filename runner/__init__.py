"""Runs AI pipelines that are bigger than the machine, one stage and one worker process at a time."""

__version__ = "0.1.0"
