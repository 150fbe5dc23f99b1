"""Every key and value of a TOML text is found where it stands."""

from __future__ import annotations

from typing import Any

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.manifest.positions import Positions

TEXT = '''\
# a comment = [not a table]
version = 1
a.b."c d" = [1, 2, {x = 3, y = "#]"}]
"quoted \\u0041" = 'it''s'
[model]
source = """several
[lines]"""   # behind
[[stage]]
name = 'x'
[stage.with]
steps = 20
[stage."from"]
[[stage]]
name = "y"
[stage.with]
k = [ # inside
  "a",
  'b',
]
'''.replace("'it''s'", '"its"')


def test_statements_are_in_order_with_their_tables() -> None:
    found = [
        (s.path, TEXT[s.start : s.end], s.table)
        for s in Positions("f.toml", TEXT).statements
        if not s.is_header
    ]
    assert found[1] == (("a", "b", "c d"), '[1, 2, {x = 3, y = "#]"}]', ())
    assert found[3] == (("model", "source"), '"""several\n[lines]"""', ("model",))
    assert found[-1] == (
        ("stage", 1, "with", "k"),
        """[ # inside\n  "a",\n  'b',\n]""",
        ("stage", 1, "with"),
    )
    headers = [(s.path, TEXT[s.start : s.end]) for s in Positions("f.toml", TEXT).statements if s.is_header]
    assert headers == [
        (("model",), "[model]"),
        (("stage", 0), "[[stage]]"),
        (("stage", 0, "with"), "[stage.with]"),
        (("stage", 0, "from"), '[stage."from"]'),
        (("stage", 1), "[[stage]]"),
        (("stage", 1, "with"), "[stage.with]"),
    ]


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("version",), (2, 1), (2, 11)),
        (("a", "b", "c d"), (3, 5), (3, 13)),
        (("a", "b", "c d", 1), (3, 17), (3, 17)),
        (("a", "b", "c d", 2, "y"), (3, 28), (3, 32)),
        (("quoted A",), (4, 1), (4, 19)),
        (("model",), (5, 2), (5, 2)),
        (("model", "source"), (6, 1), (6, 10)),
        (("stage", 0, "name"), (9, 1), (9, 8)),
        (("stage", 0, "with", "steps"), (11, 1), (11, 9)),
        (("stage", 0, "from"), (12, 8), (12, 8)),
        (("stage", 1), (13, 3), (13, 3)),
        (("stage", 1, "with", "k", 1), (18, 3), (18, 3)),
        # what is not written is where its parent is
        (("stage", 1, "with", "steps"), (15, 8), (15, 8)),
    ],
)
def test_places(path: Any, key: tuple[int, int], value: tuple[int, int]) -> None:
    found = Positions("f.toml", TEXT)
    assert (found.key(path).line, found.key(path).column) == key
    assert (found.value(path).line, found.value(path).column) == value


def test_what_is_nowhere_has_no_place() -> None:
    assert str(Positions("f.toml", "").key(("version",))) == "f.toml"


keys = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
values = st.recursive(
    st.one_of(
        st.integers(-9, 9),
        st.booleans(),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=9),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=12,
)


@settings(deadline=None)  # the machine may have other work
@given(st.dictionaries(keys, values, max_size=4))
def test_every_key_of_any_document_is_found_on_its_line(document: dict[str, Any]) -> None:
    text = tomlkit.dumps(document)
    found = Positions("f.toml", text)
    for path in paths(document):
        position = found.key(path)
        assert position.line > 0, (path, text)
        if isinstance(path[-1], str) and path[-1].isascii() and path[-1].isalnum():
            assert position.source[position.column - 1 :].lstrip("\"'").startswith(path[-1])


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return []
    return [path for key, one in inner for path in ((*at, key), *paths(one, (*at, key)))]
