"""Frames between a run and its agents: a JSON object, and bytes that belong to it. Nothing is unpickled."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD_LIMIT = 8 << 20  # bytes of JSON
PIECE = 2 << 20  # bytes of a file in one frame: a larger file travels in several
_LENGTHS = struct.Struct(">4sII")  # mark, bytes of the head, bytes of the body
_MARK = b"rnr1"


class WireError(Exception):
    """Data that violates the protocol: its sender is not trusted any more."""


def encode(head: dict[str, Any], body: bytes = b"") -> bytes:
    """One frame.

    Raises:
        WireError: it is larger than the other side accepts, or is not JSON.

    """
    try:
        text = json.dumps(head, separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise WireError(f"it cannot be written as JSON: {error}") from None
    if len(text) > HEAD_LIMIT or len(body) > PIECE:
        raise WireError(f"it is larger than {HEAD_LIMIT >> 20} MiB")
    return _LENGTHS.pack(_MARK, len(text), len(body)) + text + body


class Frames:
    """Splits a stream of bytes into frames; holds at most one that has not come completely."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The frames that end with this data.

        Raises:
            WireError: a frame is too large, or its head is no JSON object.

        """
        self._held += data
        start = 0
        try:
            while len(self._held) - start >= _LENGTHS.size:
                mark, head, body = _LENGTHS.unpack_from(self._held, start)
                if mark != _MARK or head > HEAD_LIMIT or body > PIECE:
                    raise WireError("it is no frame of runner, or is too large")
                middle = start + _LENGTHS.size + head
                end = middle + body
                if len(self._held) < end:
                    return
                text = bytes(self._held[start + _LENGTHS.size : middle])
                content = bytes(self._held[middle:end])
                start = end
                yield _object(text), content
        finally:
            del self._held[:start]


def _object(text: bytes) -> dict[str, Any]:
    try:
        head = json.loads(text)
    except (ValueError, RecursionError):
        head = None
    if not isinstance(head, dict):
        raise WireError("it is no JSON object")
    return head
