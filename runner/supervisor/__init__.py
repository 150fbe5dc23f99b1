"""Executes a run: stage by stage, starts workers, watches and restarts them, publishes events."""
