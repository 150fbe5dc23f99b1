"""Texts and bytes that are nearly right: edits of whole ones, and pieces that parsers trip over."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

DIGITS = "9" * 5000
PIECES = (
    *(
        '"',
        "'",
        '"""',
        "'''",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        "\n",
        "\r",
        "\t",
        ",",
        ".",
        "#",
        "\\",
        ": ",
    ),
    *(
        "\0",
        "\ufeff",
        "\u2028",
        "\x1b[2J",
        "\x85",
        "\\ud800",
        "\\u0000",
        "\U0001f98a",
        "e\u0301" * 40,
        "\u0315\u0300" * 2000,
    ),
    *(
        "nan",
        "-inf",
        "1e400",
        "0x" + "f" * 5000,
        DIGITS,
        "-1",
        "1e-999",
        "07:32:00",
        "1979-05-27T07:32:00Z",
        "true",
    ),
    *("a." * 40, "a." * 2000 + "a = 1\n", "[" * 50, "[" * 2000, "{a=" * 30, "x = {a = [" * 3, "z" * 9_000),
    *(
        "../../x",
        "/etc/passwd",
        "~nobody-of-that-name/x",
        "con",
        ".",
        "..",
        "a/b",
        "a\\b",
        "%s%n",
        "${HOME}",
        "$(id)",
    ),
    *("__proto__", "__class__", "!!python/object/apply:os.system [id]", "cos\nsystem\n(S'id'\ntR."),
)
pieces = st.one_of(st.sampled_from(PIECES), st.text(max_size=8))

words = st.one_of(pieces, st.text(st.characters(codec="utf-8"), max_size=20))
numbers = st.one_of(
    st.integers(), st.sampled_from([0, -1, 2**63, 2**64 - 1, 2**64, 10**400]), st.floats(), st.booleans()
)
values = st.recursive(
    st.one_of(words, numbers),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(words, inner, max_size=4)),
    max_leaves=8,
)


@st.composite
def edited(draw: st.DrawFn, whole: bytes, most: int = 5) -> bytes:
    """A few edits: bits flipped, parts cut out, doubled, moved, overwritten, pieces put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 2, 8, 64, 1 << 20])))
        kind = draw(st.sampled_from(["piece", "cut", "flip", "double", "noise"]))
        if kind == "piece":
            data[start:end] = draw(pieces).encode("utf-8", "surrogatepass")
        elif kind == "cut":
            del data[start:end]
        elif kind == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "double":
            data[start:start] = data[start:end]
        elif kind == "noise":
            data[start:end] = draw(st.binary(max_size=12))
    return bytes(data)


@st.composite
def spoiled(draw: st.DrawFn, tables: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """Right tables with a few things wrong in them, or none."""
    table = draw(tables)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        place, name = draw(st.sampled_from(list(_places(table)) or [({"": 0}, "")]))
        how = draw(st.sampled_from(["other", "other", "more", "gone"]))
        if how == "gone":
            del place[name]
        elif how == "more" and isinstance(place, dict):
            place[draw(words)] = draw(values)
        else:
            place[name] = draw(values)
    return table


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested tables and lists: what holds it, and its name or number there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in pairs:
        yield value, name
        yield from _places(inner)


def toml(value: Any) -> str:
    """A value as TOML writes it, right or not: halves of characters and the like are written as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return "{" + ", ".join(f"{json.dumps(name)} = {toml(one)}" for name, one in value.items()) + "}"
