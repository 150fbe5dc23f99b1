"""Secrets kept out of what is told: messages, events and so the journal, tracebacks.

A secret is known by its form (a token of the hub, a password in a URL, a signed URL, an Authorization
header), or because the environment has it under one of the names in :data:`SECRETS`.
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
"""Environment variables that hold a token of the hub: the client's own, and those of its neighbours."""

HIDDEN = "***"
_SHORTEST = 8  # characters of a variable's value that are no common word
# repeats that could start anywhere are bounded: time must grow with the text, not with its square
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
