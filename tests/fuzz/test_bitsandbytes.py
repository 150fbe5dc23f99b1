"""Texts and tensors of weights in 4 bits: refused, or as long as the library's kernels read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fuzz.inputs import edited
from fuzz.trying import attempt, try_inputs
from hypothesis import strategies as st

from runner.errors import ModelError
from runner.files.header import TensorInfo
from runner.model.bitsandbytes import Settings, as_weights, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Record = Callable[[str, Any], None]

STATE = "a.weight.quant_state.bitsandbytes__nf4"
SHAPE, GROUP, NESTED = (48, 64), 64, 256
NUMBERS = SHAPE[0] * SHAPE[1]
SAID: dict[str, Any] = {
    "quant_type": "nf4",
    "blocksize": GROUP,
    "dtype": "bfloat16",
    "shape": list(SHAPE),
    "nested_blocksize": NESTED,
    "nested_dtype": "float32",
    "nested_offset": 0.5,
}
TENSORS = {
    "a.weight": ("U8", (NUMBERS // 2, 1)),
    "a.weight.absmax": ("U8", (NUMBERS // GROUP,)),
    "a.weight.quant_map": ("F32", (16,)),
    "a.weight.nested_absmax": ("F32", (1,)),
    "a.weight.nested_quant_map": ("F32", (256,)),
    STATE: ("U8", (9,)),
    "a.bias": ("BF16", (SHAPE[0],)),
}
CONFIG = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
    "llm_int8_skip_modules": None,
    "quant_method": "bitsandbytes",
}
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 300),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(0, 128), max_size=3),
)


def read(tensors: dict[str, tuple[str, tuple[int, ...]]], text: bytes) -> dict[str, TensorInfo] | None:
    infos = {name: TensorInfo(dtype, shape, 0, 0) for name, (dtype, shape) in tensors.items()}
    found, error = attempt(lambda: as_weights(Settings("nf4", "bfloat16"), infos, {STATE: text}), ModelError)
    assert error is None or len(str(error)) < 1000
    return found


def test_what_is_right_is_read() -> None:
    found = read(TENSORS, json.dumps(SAID).encode())
    assert found is not None
    assert found["a.weight"].shape == SHAPE
    assert found.keys() == TENSORS.keys() - {STATE}


def test_texts(record_property: Record) -> None:
    """What is read says just what its tensors are."""

    def check(text: bytes) -> None:
        found = read(TENSORS, text)
        if found is not None:
            said = json.loads(text)
            assert -(-said["shape"][0] * said["shape"][1] // said["blocksize"]) == NUMBERS // GROUP
            assert said["shape"][0] * said["shape"][1] == NUMBERS
            assert {key: said[key] for key in SAID if key not in ("shape", "dtype", "nested_offset")} == {
                key: SAID[key] for key in SAID if key not in ("shape", "dtype", "nested_offset")
            }

    changed = st.dictionaries(st.sampled_from([*SAID, "more"]), values, max_size=2)
    texts = changed.map(lambda changes: json.dumps(SAID | changes).encode())
    record_property("inputs", try_inputs(check, st.one_of(edited(json.dumps(SAID).encode()), texts)))


def test_tensors(record_property: Record) -> None:
    def check(change: tuple[str, str, tuple[int, ...]]) -> None:
        name, dtype, shape = change
        found = read({**TENSORS, name: (dtype, shape)}, json.dumps(SAID).encode())
        assert (found is not None) == (name in ("a.bias", STATE) or TENSORS[name] == (dtype, shape))

    changes = st.tuples(
        st.sampled_from([*TENSORS]),
        st.sampled_from(["U8", "F32", "F16", "BF16", "I8"]),
        st.one_of(
            st.sampled_from([shape for _, shape in TENSORS.values()]),
            st.lists(st.integers(0, 2000), max_size=3).map(tuple),
        ),
    )
    record_property("inputs", try_inputs(check, changes))


def test_settings(record_property: Record) -> None:
    def check(changes: dict[str, Any]) -> None:
        found, error = attempt(lambda: settings_of({"quantization_config": CONFIG | changes}), ModelError)
        assert (found is None) == (error is not None)
        assert error is None or len(str(error)) < 1000
        assert found is None or found.scheme in ("nf4", "fp4", "LLM.int8")

    record_property(
        "inputs",
        try_inputs(
            check, st.dictionaries(st.sampled_from([*CONFIG, "load_in_8bit", "x"]), values, max_size=2)
        ),
    )
