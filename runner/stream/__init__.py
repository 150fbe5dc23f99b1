"""Weight streaming: blocks are read from the checkpoint's files one at a time, for a group of items.

It depends on ``torch.nn.Module`` and safetensors, and not on models, stages or items.
"""
