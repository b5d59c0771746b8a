from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Origin, Record, Rejection
from luthier.core.errors import DataError
from luthier.corpus import source_rows as reading
from luthier.corpus.bad_rows import RowError
from luthier.corpus.formats import layout_finder
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.source_rows import (
    FIRST_ROWS,
    DeclaredFields,
    SourceRow,
    not_sampled,
    source_rows,
    too_few,
)
from luthier.corpus.unify import record_from_row

_SKIP = CorpusSettings(on_bad_row="skip")


def _read(path: Path, settings: CorpusSettings = _SKIP, **declared: Any) -> list[SourceRow[Record]]:
    source = Source(path.name, path=path, **declared)
    fields = DeclaredFields(source.columns, source.label)
    find = layout_finder(source, any_kind=True)
    return list(source_rows(source, settings, find, record_from_row, fields=fields))


def test_rows_come_in_order_kept_or_not(write_bytes):
    lines = [
        '{"text": "a"}',
        "{broken",
        '{"instruction": "q", "output": 5}',
        '{"instruction": "q", "output": ""}',
        '{"instruction": "q", "output": "a"}',
        "{broken too",
    ]
    rows = _read(write_bytes("a.jsonl", "\n".join(lines).encode()))
    assert [row.origin.line for row in rows] == [1, 2, 3, 4, 5, 6]
    reasons = [row.rejection and row.rejection.reason for row in rows]
    assert reasons == [None, "not_json", "wrong_type", "short_answer", None, "truncated"]
    assert [row.format for row in rows] == ["text", None, None, "alpaca", "alpaca", None]
    # A row that a filter left out is kept with what it says.
    assert [row.record is not None for row in rows] == [True, False, False, True, True, False]


def test_a_bad_row_ends_it_where_the_user_wants_that(write_rows):
    path = write_rows("a.jsonl", [{"text": "a"}, {"text": 5}])
    with pytest.raises(DataError, match=r"a\.jsonl:2: text is the number 5.*\n.*on_bad_row: skip"):
        _read(path, CorpusSettings())


def test_rows_that_can_not_be_read_are_not_heaped_up(write_bytes, monkeypatch):
    monkeypatch.setattr(reading, "MAX_UNREAD", 3)
    good, bad = b'{"text": "a"}\n', b"{broken\n"
    rows = _read(write_bytes("a.jsonl", good + 3 * bad + good + 3 * bad))
    assert [row.rejection is None for row in rows] == [True, *3 * [False], True, *3 * [False]]
    path = write_bytes("a.jsonl", good + 4 * bad + good)
    with pytest.raises(DataError) as caught:
        _read(path)
    assert caught.value.problem.startswith(
        "4 rows one after another can't be read; the first one: the line is not valid JSON"
    )
    assert caught.value.where == f"{path}:2"
    assert str(caught.value.mend).endswith("; or name the file by what it holds.")


@pytest.mark.parametrize("num_rows", [1, FIRST_ROWS, 5 * FIRST_ROWS])
def test_a_source_of_something_else_is_an_error_whatever_becomes_of_rows(write_rows, num_rows: int):
    path = write_rows("a.jsonl", [{"url": "x"}] * num_rows)
    with pytest.raises(DataError, match=r"a\.jsonl:1: .*no format that is known \(found: url\)"):
        _read(path)


def test_declared_field_that_the_first_row_lacks(write_rows):
    path = write_rows("a.jsonl", [{"question": "x", "reply": "y"}])
    declared: dict[str, Any] = {"format": "alpaca", "columns": {"prompt": "questoin"}}
    with pytest.raises(DataError) as caught:
        _read(path, CorpusSettings(), **declared)
    assert str(caught.value) == (
        f"{path}:1: columns: prompt is declared as 'questoin', and the row has no such field\n"
        "  Did you mean question?"
    )
    # Another fault of the row is told as it is.
    declared["columns"] = {"prompt": "question", "response": "reply", "system": "gone"}
    bad = write_rows("b.jsonl", [{"question": 5, "reply": "y"}])
    with pytest.raises(DataError, match="question is the number 5"):
        _read(bad, CorpusSettings(), **declared)


def test_a_declared_field_that_some_rows_had_is_missing_as_any_other(write_rows):
    path = write_rows("a.jsonl", [{"q": "x", "r": "y"}, {"r": "y"}])
    declared: dict[str, Any] = {"format": "alpaca", "columns": {"prompt": "q", "response": "r"}}
    with pytest.raises(DataError, match=r":2: the field q is missing \(found: r\)"):
        _read(path, CorpusSettings(), **declared)


def test_declared_fields_are_asked_for_at_the_end():
    fields = DeclaredFields({"prompt": "q", "system": "sytem"}, "a.jsonl")
    fields.note({"q": 1, "system": None})
    fields.note({"q": 1})
    fields.explain(RowError("missing_field", "the field q is missing"), Origin("a", 0))
    with pytest.raises(DataError) as caught:
        fields.end()
    assert str(caught.value) == (
        "a.jsonl: columns: system is declared as 'sytem', and no row has such a field\n"
        "  Did you mean system?"
    )
    fields.note({"sytem": None})
    fields.end()
    fields.note({"q": 1})


def test_accounts_of_draws():
    source = Source("web", path=Path("x/a.json"), num_samples=5)
    error = too_few(source, 3)
    assert str(error).startswith("web: num_samples is 5, and there are 3 usable rows\n  Lower")
    origin = Origin("x/a.json", 7)
    assert not_sampled(source, origin) == Rejection(origin, "not_sampled", "num_samples is 5")
