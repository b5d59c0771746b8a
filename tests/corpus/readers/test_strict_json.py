from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.corpus.bad_rows import RowError
from luthier.corpus.readers.strict_json import StrictDecoder, as_row, count_keys

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@given(_VALUES, st.booleans())
def test_sound_values_come_back_whole(value: Any, ascii_only: bool):
    text = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass").decode()
    found, end, amiss = StrictDecoder().decode_at(f"  {text} tail", 2)
    assert (found, end, amiss) == (value, 2 + len(text), None)


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "duplicate_key", "the field c stands 2 times"),
        ('{"a": [1, NaN]}', "nan", "NaN is not a JSON value"),
        ('{"a": -Infinity}', "nan", "-Infinity is not a JSON value"),
        ('{"a": "x\\ud83dy"}', "lone_surrogate", r"half of a surrogate pair: \ud83d"),
        ('{"\\udc00": 1}', "lone_surrogate", r"half of a surrogate pair: \udc00"),
    ],
)
def test_what_others_let_pass_is_named(text: str, reason: str, detail: str):
    _, end, amiss = StrictDecoder().decode_at(text, 0)
    assert end == len(text)
    assert amiss is not None
    assert amiss.reason == reason
    assert detail in amiss.detail


def test_whole_surrogate_pairs_are_characters():
    value, _, amiss = StrictDecoder().decode_at('"\\ud83d\\ude00"', 0)
    assert (value, amiss) == ("😀", None)


def test_decoder_forgets_the_value_before():
    decoder = StrictDecoder()
    assert decoder.decode_at("[NaN]", 0)[2] is not None
    assert decoder.decode_at("[1]", 0)[2] is None


def test_too_deep_and_too_long_are_json_errors():
    with pytest.raises(JSONDecodeError, match="Nested too deep"):
        StrictDecoder().decode_at("[" * 200_000, 0)
    with pytest.raises(JSONDecodeError, match="Number too long"):
        StrictDecoder().decode_at("1" * 5_000, 0)
    with pytest.raises(JSONDecodeError, match="Expecting value"):
        StrictDecoder().decode_at("?", 0)


def test_as_row():
    assert as_row({"a": 1}, None) == {"a": 1}
    with pytest.raises(RowError, match=r"the row is the number 5, not an object"):
        as_row(5, None)
    with pytest.raises(RowError, match="NaN"):
        as_row({}, RowError("nan", "NaN is not a JSON value"))


def test_count_keys():
    assert count_keys({"a": [{"b": 1}, {"b": 2, "c": {}}], "d": "x"}) == 5
    assert count_keys([1, "a"]) == 0
