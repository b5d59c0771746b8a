from __future__ import annotations

from typing import Any

import pytest

from luthier.contracts.conversation import Message, Origin, Record
from luthier.corpus.bad_rows import RowError
from luthier.corpus.prepared_row import prepared_record
from luthier.corpus.record import columns_of, to_table

_TURNS = (Message("user", "q"), Message("assistant", "", 0.5, '[{"name": "f"}]'))
_RECORDS = [
    Record(Origin("raw/a.jsonl", 4, 5), _TURNS, tools="[]", category="c", task="t", weight=0.25),
    Record(Origin("raw/b.parquet", 7), text="a document", language="en"),
    Record(Origin("c.json", 0, 1), _TURNS[:1], chosen=_TURNS[1:], rejected=_TURNS[1:], margin=1.5),
    Record(Origin("c.json", 1, 2), _TURNS, label=False),
]


def _row(record: Record) -> dict[str, Any]:
    return to_table(columns_of([record], "a.jsonl")).to_pylist()[0]


@pytest.mark.parametrize("record", _RECORDS)
def test_every_kind_of_row_comes_back_as_it_was(record: Record):
    assert prepared_record({**_row(record), "quality": 0.5}) == record


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"id": "x"}, "wrong_type", "id is 'x', source#number is needed"),
        ({"id": 5}, "wrong_type", "id is the number 5, text"),
        ({"margin": -1}, "wrong_type", "margin is the number -1, a number from 0 up is needed"),
        ({"label": "x"}, "wrong_type", "label is text, not true or false"),
        ({"text": 5}, "wrong_type", "text is the number 5"),
        ({"messages": "x"}, "wrong_type", "messages is text, a list is needed"),
        ({"chosen": [{"role": "human"}]}, "missing_field", r"chosen\[0\] has no content"),
        (
            {"chosen": [{"role": "human", "content": "x"}]},
            "unknown_role",
            r"chosen\[0\].role is 'human'",
        ),
        ({"weight": -1.0}, "wrong_type", "weight is the number -1.0"),
    ],
)
def test_rows_that_are_not_what_they_are_declared_to_be(
    change: dict[str, Any], reason: str, detail: str
):
    with pytest.raises(RowError, match=detail) as caught:
        prepared_record({**_row(_RECORDS[0]), **change})
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", ["id", "origin", "messages"])
def test_columns_that_each_prepared_row_has(name: str):
    row = _row(_RECORDS[0])
    del row[name]
    with pytest.raises(RowError, match=f"the field {name} is missing: this is no row of a prep"):
        prepared_record(row)
