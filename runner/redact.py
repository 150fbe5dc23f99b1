"""Hides secrets in messages, tracebacks and events, and so in the journal.

A secret is recognised by its form (a token of the hub, a password in a URL, a signed URL, an Authorization
header), or as the value of one of the environment variables in :data:`SECRETS`.
"""

from __future__ import annotations

import os
import re
from typing import Any

SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
    "HUGGINGFACEHUB_API_TOKEN",
    "HF_API_TOKEN",
)
"""Environment variables that hold a hub token, for huggingface_hub and related programs."""

HIDDEN = "***"
_SHORTEST = 8  # characters of a variable's value; shorter ones could be common words
# repeats that could start anywhere are bounded, to keep the time linear in the length of the text
_FORMS = re.compile(
    r"\b(?:hf_|api_org_)[A-Za-z0-9]{16,}"
    r"|\bhf_oauth_[\w.-]{16,}"
    r"|(?<=://)[^/\s@\"'<>]+(?=@)"
    r"|(?P<query>[?&;](?P<name>[\w.-]{1,60})=)[^&;#\s\"'<>]+"
    r"|(?P<header>\bauthorization['\"]?\s{0,9}[:=]\s{0,9}['\"]?(?:(?:bearer|basic|token)\s{1,9})?)[^\s'\",}]+",
    re.IGNORECASE,
)
_TELLING = re.compile(r"token|key|secret|sig|password|credential", re.IGNORECASE)


def redact(text: str) -> str:
    """The text with ``***`` in place of each secret."""
    for name in SECRETS:
        value = os.environ.get(name, "").strip()
        if len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return _FORMS.sub(_hidden, text)


def redact_all(value: Any) -> Any:
    """A JSON value with every string in it redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: redact_all(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(one) for one in value]
    return value


def _hidden(match: re.Match[str]) -> str:
    if match["name"] and not _TELLING.search(match["name"]):
        return match[0]
    return (match["query"] or match["header"] or "") + HIDDEN
