"""Placements, predicted peaks and times of stages, computed before anything is loaded."""
