"""The diffusers plugin: any pipeline that can be split into encode, denoise and decode."""

from __future__ import annotations

__version__ = "0.1.0"
