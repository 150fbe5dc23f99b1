"""Headers of other people's files: refused or right, never a crash."""

from __future__ import annotations

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.files.header import HeaderError, parse_header

numbers = st.one_of(st.integers(-(2**70), 2**70), st.booleans(), st.none(), st.floats(), st.text(max_size=3))
tensors = st.dictionaries(
    st.text(max_size=5),
    st.one_of(
        numbers,
        st.fixed_dictionaries(
            {
                "dtype": st.one_of(st.sampled_from(["F32", "BF16", "U8"]), numbers),
                "shape": st.one_of(st.lists(numbers, max_size=3), numbers),
                "data_offsets": st.one_of(st.lists(numbers, max_size=3), numbers),
            }
        ),
    ),
    max_size=4,
)


@settings(deadline=None)  # the machine may have other work
@given(st.one_of(st.binary(max_size=200), tensors.map(lambda t: json.dumps(t).encode())))
def test_any_header_is_parsed_or_refused(raw: bytes) -> None:
    with contextlib.suppress(HeaderError):
        header = parse_header(raw)
        expected = 8 + len(raw)
        for info in sorted(header.tensors.values(), key=lambda info: (info.start, info.end)):
            assert info.start == expected
            expected = info.end
        assert header.size == expected
