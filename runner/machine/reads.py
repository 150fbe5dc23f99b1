"""How weights are read when they are streamed: what the reader takes for that, the plan counts."""

CHUNK = 16 << 20
"""Bytes of one read."""
READERS = 2
"""Threads that read at a time; each has a buffer of a chunk."""
