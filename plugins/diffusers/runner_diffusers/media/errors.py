"""The error of files that cannot be read or written."""

from __future__ import annotations


class MediaError(ValueError):
    """What is wrong with a file or a result, and what to do about it: a sentence for the user."""
