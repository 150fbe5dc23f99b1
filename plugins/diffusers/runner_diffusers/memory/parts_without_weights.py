"""Schedulers, tokenizers and processors for measuring: from the model's files if they are on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def part(cls: Any, config: Mapping[str, Any], folder: Path | None) -> Any:
    """An object without weights; where its files are not here, one that makes results of the same shapes."""
    if folder is not None and folder.is_dir():
        return cls.from_pretrained(str(folder))
    if hasattr(cls, "from_config"):
        return cls.from_config(dict(config))
    if hasattr(cls, "convert_tokens_to_ids"):
        return Tokens(config)
    return cls()
