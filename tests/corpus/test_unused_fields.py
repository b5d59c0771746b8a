from __future__ import annotations

from typing import Any

import pytest

from luthier.corpus.formats import find_record_layout
from luthier.corpus.layouts import RecordLayout, TextLayout
from luthier.corpus.unify import RowColumns
from luthier.corpus.unused_fields import MAX_NAME_CHARS, MAX_NAMES, OTHERS, UnusedFields


def unused(row: dict[str, Any], columns: RowColumns | None = None) -> tuple[str, ...]:
    return UnusedFields(columns or RowColumns()).of(row, find_record_layout(row))


@pytest.mark.parametrize(
    "row",
    [
        {"text": "x"},
        {"text": "x", "weight": 2, "loss": 1, "train": True},
        {"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["q", "a"]]},
        {"instruction": "q", "output": "a", "tools": "[]", "label": True, "kto_tag": True},
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "completion": "a"},
        {"question": "q", "answer": "a"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"messages": [{"role": "user", "content": "q"}], "system": "s", "tools": "[]"},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {}, "rejected": {}},
    ],
    ids=str,
)
def test_what_a_format_reads_is_not_unused(row: dict[str, Any]):
    assert unused(row) == ()
    assert unused(row | {"id": 3, "sytem": "s"}) == ("id", "sytem")


def test_empty_fields_hold_nothing_to_pass_over():
    row = {"text": "x", "url": None, "note": "", "id": 0, "flag": False}
    assert unused(row) == ("id", "flag")


def test_columns_that_are_looked_at():
    row = {"text": "x", "task": "t", "topic": "c", "area": "d"}
    assert unused(row) == ("task", "topic", "area")
    columns = RowColumns(task="task", category="topic", source_category="area")
    assert unused(row, columns) == ()


def test_fields_of_several_formats_in_one_table():
    fields = UnusedFields(RowColumns())
    rows = [
        {"prompt": "q", "response": "a", "answer": None, "completion": None},
        {"prompt": "q", "response": None, "answer": "a", "completion": None},
        {"prompt": "q", "response": "a", "answer": "b", "completion": None},
    ]
    assert [fields.of(row, find_record_layout(row)) for row in rows] == [(), (), ("answer",)]


def test_a_prepared_corpus_may_have_what_it_likes():
    assert UnusedFields(RowColumns()).of({"anything": 1}, RecordLayout()) == ()


def test_names_without_end_are_not_kept():
    fields = UnusedFields(RowColumns())
    found = [fields.of({"text": "x", f"n{at}": 1}, TextLayout()) for at in range(3 * MAX_NAMES)]
    assert found[: MAX_NAMES + 1] == [*((f"n{at}",) for at in range(MAX_NAMES)), (OTHERS,)]
    assert set(found[MAX_NAMES:]) == {(OTHERS,)}
    assert fields.of({"text": "x", "n3": 1}, TextLayout()) == ("n3",)
    assert UnusedFields(RowColumns()).of({"text": "", "x" * 999: 1}, TextLayout()) == (
        "x" * MAX_NAME_CHARS,
    )
