from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from luthier.dataset import row_table
from luthier.dataset.row_table import Pair, Row, describe, to_dataset


def row(length: int, num_supervised: int = 1, weight: float = 1.0) -> Row:
    ids = np.arange(length, dtype=np.int32)
    labels = np.where(ids >= length - num_supervised, ids, np.int32(-100))
    weights = None if weight == 1 else ((labels != -100) * weight).astype(np.float32)
    return Row(ids, labels, weights, f"rows.jsonl:{length}")


def test_a_rendered_row_is_packed(renderer, talk):
    made = renderer("chatml", "chatml")
    (rendered,) = made.render(talk(("u", "Hi"), ("a", "Hello.")))
    packed = Row.of(rendered)
    assert packed.input_ids.dtype == packed.labels.dtype == np.int32
    assert packed.input_ids.tolist() == rendered.input_ids
    assert packed.labels.tolist() == rendered.labels
    assert packed.loss_weights is None
    assert not packed.is_weighted
    assert packed.num_supervised() == sum(rendered.supervised)
    assert packed.weights().tolist() == rendered.loss_weights
    assert packed.origin == "rows.jsonl:7"
    (rendered,) = made.render(talk(("u", "Hi"), ("a", "Hello."), weight=0.5))
    assert Row.of(rendered).weights().tolist() == rendered.loss_weights


def test_a_table_has_the_columns_of_the_contract(monkeypatch):
    monkeypatch.setattr(row_table, "ROWS_PER_CHUNK", 2)
    rows = [row(4, 2), row(3, 1, weight=0.5), row(5, 5)]
    made = to_dataset(rows, with_weights=True)
    types = {name: str(feature) for name, feature in made.features.items()}
    assert types == {
        "input_ids": "List(Value('int32'))",
        "labels": "List(Value('int32'))",
        "loss_weights": "List(Value('float32'))",
        "length": "Value('int32')",
        "num_supervised": "Value('int32')",
        "origin": "Value('string')",
    }
    assert made[1] == {
        "input_ids": [0, 1, 2],
        "labels": [-100, -100, 2],
        "loss_weights": [0.0, 0.0, 0.5],
        "length": 3,
        "num_supervised": 1,
        "origin": "rows.jsonl:3",
    }
    assert made["length"][:] == [4, 3, 5]
    assert "loss_weights" not in to_dataset(rows, with_weights=False).column_names
    assert len(to_dataset([], with_weights=False)) == 0


def test_bytes_of_text_have_a_column_where_rows_have_them():
    rows = [replace(row(4, 2), text_bytes=9), replace(row(3, 1), text_bytes=4)]
    made = to_dataset(rows, with_weights=False)
    assert made["text_bytes"][:] == [9, 4]
    assert describe(rows)["text_bytes"] == 13
    assert "text_bytes" not in describe([row(4, 2)])


def paired(weight: float = 1.0, desirable: bool | None = None) -> Row:
    ids = np.arange(6, dtype=np.int32)
    return Row(ids, ids, None, "rows.jsonl:1", Pair(2, 3, weight, desirable))


def test_a_table_of_pairs(monkeypatch):
    monkeypatch.setattr(row_table, "ROWS_PER_CHUNK", 1)
    names = ["input_ids", "labels", "prompt_length", "chosen_length"]
    rest = ["length", "num_supervised", "origin"]
    made = to_dataset([paired(), paired()], with_weights=False)
    assert made.column_names == [*names, *rest]
    assert (made[1]["prompt_length"], made[1]["chosen_length"]) == (2, 3)
    rows = [paired(0.5, True), paired(1.0, False)]
    assert [row.is_weighted for row in rows] == [True, False]
    made = to_dataset(rows, with_weights=True)
    assert made.column_names == [*names, "weight", "desirable", *rest]
    assert (made["weight"][:], made["desirable"][:]) == ([0.5, 1.0], [True, False])
    assert describe(rows)["desirable"] == 1
    assert "desirable" not in describe([paired()])


def test_figures_of_a_split():
    assert describe([row(4, 2), row(32, 1), row(33, 3), row(1000, 1)]) == {
        "rows": 4,
        "tokens": 1069,
        "supervised_tokens": 7,
        "max_length": 1000,
        "length_histogram": [[32, 2], [64, 1], [1024, 1]],
    }
    assert describe([row(200_000)])["length_histogram"] == [[200_000, 1]]
    assert describe([])["length_histogram"] == []


@pytest.mark.parametrize("length", [1, 100])
def test_the_estimate_of_bytes_is_near(length, tmp_path):
    rows = [row(length) for _ in range(500)]
    to_dataset(rows, with_weights=False).save_to_disk(str(tmp_path / "rows"))
    size = sum(file.stat().st_size for file in (tmp_path / "rows").iterdir())
    assert 0.5 < sum(r.num_bytes() for r in rows) / size < 2


def test_margins_of_pairs_where_some_rows_say_one() -> None:
    pairs = [Pair(2, 3), Pair(2, 3, margin=1.5)]
    rows = [replace(paired(), pair=pair) for pair in pairs]
    made = to_dataset(rows, with_weights=False)
    assert made["margin"][:] == [0.0, 1.5]
    assert str(made.features["margin"]) == "Value('float32')"
    assert "margin" not in to_dataset(rows[:1], with_weights=False).column_names
