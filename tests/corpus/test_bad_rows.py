from __future__ import annotations

import json

import pytest

from luthier.contracts.conversation import Origin, Rejection
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import (
    CONTENT_CHARS,
    MENDS,
    RowError,
    clip,
    kind_of,
    raise_rejection,
    raise_unskippable,
)

_ORIGIN = Origin("a.jsonl", 4, 5)


def test_rejection_keeps_the_row():
    rejection = RowError("nan", "NaN is bad").rejection(_ORIGIN, {"a": "天"})
    assert rejection == Rejection(_ORIGIN, "nan", "NaN is bad", '{"a": "天"}')


def test_error_policy_names_place_reason_mend_and_the_way_to_skip():
    with pytest.raises(DataError) as caught:
        raise_rejection(Rejection(_ORIGIN, "missing_field", "the field output is missing"))
    assert str(caught.value) == (
        "a.jsonl:5: the field output is missing\n  Add the field to the row, "
        "or set on_bad_row: skip to count such rows and leave them out."
    )


def test_where_rows_cannot_be_skipped_skipping_is_not_offered():
    with pytest.raises(DataError, match=r"a\.jsonl:5: NaN is bad\n  Write null") as caught:
        raise_unskippable(Rejection(_ORIGIN, "nan", "NaN is bad"))
    assert "on_bad_row" not in str(caught.value)
    assert RowError("nan", "bad", mend="Do this.").data_error(_ORIGIN).mend == "Do this."
    assert "Write null" in str(RowError("nan", "bad").data_error(_ORIGIN).mend)


def test_reasons_are_a_closed_set():
    with pytest.raises(AssertionError, match="typo"):
        RowError("typo", "")
    assert all(mend and not mend.endswith(".") for mend in MENDS.values())


def test_content_is_cut_and_always_writable():
    cut = clip("x" * (CONTENT_CHARS + 1))
    assert cut == "x" * CONTENT_CHARS + f"... ({CONTENT_CHARS + 1} characters)"
    assert clip(" a\n") == "a"
    json.dumps(clip("\ud800"), ensure_ascii=False).encode("utf-8")
    assert clip({"a": {1}}) == '{"a": "{1}"}'  # tables hold values that JSON does not know


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (1.5, "the number 1.5"),
        ("", "text"),
        ([], "a list"),
        ({}, "an object"),
        (b"", "a bytes"),
    ],
)
def test_kinds_have_names(value: object, kind: str):
    assert kind_of(value) == kind
