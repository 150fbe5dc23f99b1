"""Schedulers, tokenizers and processors for measuring: from the model's files if they are on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import BatchEncoding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CHARACTERS = 4  # of a token, in English
CHAT = 160  # characters that a chat's template adds, about
LONGEST = {"CLIPTokenizer": 77}
"""Tokens that a text has at the most, where no config says it."""
NO_LIMIT = 1 << 20


def part(cls: Any, config: Mapping[str, Any], folder: Path | None) -> Any:
    """An object without weights; where its files are not here, one that makes results of the same shapes."""
    if folder is not None and folder.is_dir():
        return cls.from_pretrained(str(folder))
    if hasattr(cls, "from_config"):
        return cls.from_config(dict(config))
    if hasattr(cls, "convert_tokens_to_ids"):
        return Tokens(
            int(config.get("model_max_length") or LONGEST.get(cls.__name__.removesuffix("Fast"), 512))
        )
    return cls()


class Tokens:
    """Stands in for a tokenizer: as many tokens as the longest text may have, or as are asked for."""

    padding_side = "right"
    pad_token = bos_token = eos_token = unk_token = "<token>"  # noqa: S105 - no password
    added_tokens_encoder: Mapping[str, int] = {}
    pad_token_id = bos_token_id = eos_token_id = unk_token_id = 0

    def __init__(self, longest: int) -> None:
        self.model_max_length = longest

    def __call__(
        self,
        text: str | Sequence[str],
        *_: Any,
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool | str = False,
        **__: Any,
    ) -> BatchEncoding:
        texts = [text] if isinstance(text, str) else list(text)
        limit = max_length or self.model_max_length
        tokens = max(len(one) // CHARACTERS + 2 for one in texts)
        if padding == "max_length" and limit < NO_LIMIT:
            tokens = max(limit, 0 if truncation else tokens)
        elif truncation:
            tokens = min(tokens, limit)
        ids = torch.ones((len(texts), tokens), dtype=torch.int64)
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def apply_chat_template(self, messages: Any, *, tokenize: bool = True, **options: Any) -> Any:
        """A text, or its tokens, of about the same length."""
        text = f"{messages}{' ' * CHAT}"
        if not tokenize:
            return text
        encoded = self(text, **options)
        return encoded if options.get("return_dict") else encoded["input_ids"]

    def batch_decode(self, ids: torch.Tensor, **_: Any) -> list[str]:
        return [""] * len(ids)

    def tokenize(self, text: str, **_: Any) -> list[str]:
        return [""] * (len(text) // CHARACTERS)

    def encode(self, text: str, **options: Any) -> list[int]:
        ids: list[int] = self(text, **options)["input_ids"][0].tolist()
        return ids

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        return 0 if isinstance(tokens, str) else [0] * len(tokens)
