"""Weights that pass through: read from the checkpoint's own files, one block at a time, for a group of items.

This room knows ``torch.nn.Module`` and safetensors, and nothing of models, stages or items.
"""
