from __future__ import annotations

from typing import Any

from luthier.corpus.lengths import TokenRate
from luthier.corpus.statistics import Tally, kind_of_row

RATE = TokenRate(narrow=0.25, wide=1.0)
TURN = [{"role": "assistant", "content": "yes", "weight": 1.0}]


def test_rows_are_counted_by_what_they_are(make_columns: Any):
    columns = make_columns(
        [("abcd", "efgh"), ("中文", "中文")],
        language=["en", None],
        category=["math", None],
    )
    found = Tally.of(columns, RATE).as_json()
    assert found == {
        "rows": 2,
        "characters": 12,
        "tokens": 6,
        "languages": {"en": 1, "unknown": 1},
        "categories": {"math": 1},
        "kinds": {"conversation": 2},
        "length_histogram": [[32, 2]],
    }


def test_counts_of_batches_add_up(make_columns: Any):
    one = make_columns([("a" * 400, "b"), ("c", "d")], source="one")
    two = make_columns([("e" * 4000, "f")], source="two")
    total = Tally.of(one, RATE)
    total.add(Tally.of(two, RATE))
    assert total.rows == 3
    assert total.sources == {"one": 2, "two": 1}
    assert total.as_json()["length_histogram"] == [[32, 1], [128, 1], [1024, 1]]


def test_the_longest_class_comes_last(make_columns: Any):
    found = Tally.of(make_columns([("a" * 400_000, "b"), ("c", "d")]), RATE)
    assert found.as_json()["length_histogram"] == [[32, 1], [0, 1]]


def test_rare_categories_are_counted_together(make_columns: Any):
    names = [str(number) for number in range(60)]
    found = Tally.of(make_columns([("a", "b")] * 60, category=names), RATE).as_json()
    assert len(found["categories"]) == 51
    assert found["categories"]["(others)"] == 10


def test_kinds(make_columns: Any):
    columns = make_columns(
        [("a", "b")] * 4,
        chosen=[TURN, None, None, None],
        rejected=[TURN, None, None, None],
        label=[None, False, None, None],
        text=[None, None, None, "a document"],
    )
    columns["messages"][3] = []
    kinds = [kind_of_row(columns, row) for row in range(4)]
    assert kinds == ["preference", "kto", "conversation", "text"]
