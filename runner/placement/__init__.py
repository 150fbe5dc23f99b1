"""Loads components in the worker with their planned placement; streaming itself is in ``stream/``."""
