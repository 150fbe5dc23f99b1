"""Tiny checkpoints of many pipelines, with random weights, in diffusers' layout."""

from tiny_models.build import PIPELINES, checkpoint

__all__ = ["PIPELINES", "checkpoint"]
