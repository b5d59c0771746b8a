"""Rows out of Arrow: the same values as Python would give, without making Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from luthier.batches.collate import causal_lm_collate
from luthier.batches.flat import flat_collate
from luthier.batches.reading import ArrowRows, open_rows

ROWS = [
    {
        "input_ids": [row + 1] * (1 + row % 4),
        "labels": [-100] * (1 + row % 4),
        "loss_weights": [0.5] * (1 + row % 4),
        "origin": f"a.json:{row}",
        "length": 1 + row % 4,
    }
    for row in range(12)
]


@pytest.fixture
def dataset() -> Any:
    import datasets

    # Three tables: a batch is then cut out of several pieces of memory.
    parts = [datasets.Dataset.from_list(ROWS[start : start + 4]) for start in (0, 4, 8)]
    return datasets.concatenate_datasets(parts)


def as_python(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in row.items()}
        for row in rows
    ]


@pytest.mark.parametrize("asked", [[3], [0, 1], [11, 0, 5, 4, 5], list(range(12))])
def test_rows_come_in_the_order_asked_for(dataset: Any, asked: list[int]) -> None:
    rows = ArrowRows(dataset).__getitems__(asked)
    assert as_python(rows) == [ROWS[row] for row in asked]
    assert all(isinstance(row["input_ids"], np.ndarray) for row in rows)
    assert not any(isinstance(row["length"], np.ndarray) for row in rows)


def test_a_reordered_dataset_is_followed(dataset: Any) -> None:
    rows = ArrowRows(dataset.select([7, 2, 9]))
    assert len(rows) == 3
    assert as_python([rows[2], rows[0]]) == [ROWS[9], ROWS[7]]


def test_lists_with_gaps_and_lists_of_words_stay_what_they_are() -> None:
    import datasets

    rows = [
        {"words": ["a", "b"], "gaps": [1, None], "missing": None},
        {"words": [], "gaps": [2], "missing": [3]},
    ]
    assert ArrowRows(datasets.Dataset.from_list(rows)).__getitems__([1, 0]) == rows[::-1]


def test_batches_are_those_of_lists(dataset: Any) -> None:
    asked = [11, 0, 5]
    for collate in (lambda rows: causal_lm_collate(rows, 0), flat_collate):
        batch = collate(ArrowRows(dataset).__getitems__(asked))
        expected = collate([ROWS[row] for row in asked])
        assert {n: t.tolist() for n, t in batch.items()} == {
            n: t.tolist() for n, t in expected.items()
        }
        assert {n: t.dtype for n, t in batch.items()} == {n: t.dtype for n, t in expected.items()}


def test_a_batch_may_be_written_to_and_the_rows_stay(dataset: Any) -> None:
    rows = ArrowRows(dataset)
    for collate in (lambda rows: causal_lm_collate(rows, 0), flat_collate):
        collate(rows.__getitems__([2]))["input_ids"].zero_()
    assert as_python([rows[2]]) == [ROWS[2]]


def test_only_a_dataset_is_wrapped(dataset: Any) -> None:
    assert isinstance(open_rows(dataset), ArrowRows)
    assert open_rows(ROWS) is ROWS
