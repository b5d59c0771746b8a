from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus import outcome
from luthier.corpus.lengths import TokenRate
from luthier.corpus.outcome import Written, write_corpus
from luthier.corpus.pipeline import PlannedStep, StepOutcome, run_steps
from luthier.corpus.record import select

ROWS = [("q0", "a0"), ("q1", ""), ("q2", "a2"), ("q3", "a3")]


class DropEmpty:
    name = "empty"

    def __call__(self, columns: Columns) -> StepResult:
        filled = [bool(turns[-1]["content"]) for turns in columns["messages"]]
        drops = [
            Drop(id_, "no_answer", "the answer is empty")
            for id_, kept in zip(columns["id"], filled, strict=True)
            if not kept
        ]
        marked = {**columns, "marks": [None if kept else "x" for kept in filled]}
        return StepResult(select(marked, filled), drops)


def outcomes_of(columns: Columns, root: Path, size: int = 2) -> list[StepOutcome]:
    def batches() -> Any:
        for start in range(0, len(columns["id"]), size):
            part = {name: values[start : start + size] for name, values in columns.items()}
            yield StepResult(part), part

    return run_steps(batches, f"inputs {size}", [PlannedStep(DropEmpty(), {})], root)


@pytest.fixture
def write(make_columns: Any, tmp_path: Path) -> Any:
    def run(
        name: str, columns: Columns | None = None, size: int = 2, **options: Any
    ) -> tuple[Path, Written]:
        made = outcomes_of(columns or make_columns(ROWS), tmp_path / "steps", size)
        folder = tmp_path / name
        folder.mkdir()
        options = {"is_val": None, "val_outcomes": ()} | options
        return folder, write_corpus(folder, made, rate=TokenRate(), **options)

    return run


def ids(path: Path) -> list[str]:
    return pq.read_table(path).column("id").to_pylist()


def test_sides_and_drops_are_written(write: Any):
    folder, written = write("out", is_val=[False, True, False])
    assert ids(folder / "train/part-00000.parquet") == ["a.jsonl#0", "a.jsonl#3"]
    assert ids(folder / "val/part-00000.parquet") == ["a.jsonl#2"]
    gone = pq.read_table(folder / "dropped.parquet").to_pylist()
    assert [(row["step"], row["reason"], row["id"]) for row in gone] == [
        ("empty", "no_answer", "a.jsonl#1")
    ]
    assert {name: facts["rows"] for name, facts in written.files.items()} == {
        "dropped.parquet": 1,
        "train/part-00000.parquet": 2,
        "val/part-00000.parquet": 1,
    }
    assert (written.before.rows, written.after.rows) == (4, 3)


def test_without_a_split_there_is_one_side(write: Any):
    folder, _ = write("out")
    assert not (folder / "val").exists()
    assert len(ids(folder / "train/part-00000.parquet")) == 3


def test_a_validation_file_is_the_other_side(write: Any, make_columns: Any, tmp_path: Path):
    val = outcomes_of(make_columns([("v", "w")], source="val.jsonl"), tmp_path / "val-steps")
    folder, written = write("out", val_outcomes=val)
    assert ids(folder / "val/part-00000.parquet") == ["val.jsonl#0"]
    assert written.after.sources == {"a.jsonl": 3, "val.jsonl": 1}


def test_the_hash_is_of_what_rows_say(write: Any, make_columns: Any):
    _, one = write("one")
    _, spread = write("spread", size=1)
    moved = make_columns(ROWS)
    moved["origin"] = [f"/elsewhere/{origin}" for origin in moved["origin"]]
    _, elsewhere = write("elsewhere", moved, size=3)
    assert one.rows_sha256 == spread.rows_sha256 == elsewhere.rows_sha256
    _, other_side = write("side", is_val=[True, False, False])
    changed = make_columns([*ROWS[:3], ("q3", "a4")])
    _, other_row = write("row", changed, size=4)
    hashes = {one.rows_sha256, other_side.rows_sha256, other_row.rows_sha256}
    assert len(hashes) == 3


def test_shards_hold_so_many_rows(write: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "ROWS_PER_SHARD", 2)
    folder, _ = write("out", size=1)
    assert [len(ids(path)) for path in sorted((folder / "train").iterdir())] == [2, 1]


def test_a_column_that_is_empty_in_one_part_has_its_type(write: Any, make_columns: Any):
    columns = make_columns(ROWS)
    columns["pii"] = [None, None, "email 1", "phone 1"]
    folder, _ = write("out", columns)
    rows = pq.read_table(folder / "train/part-00000.parquet").to_pylist()
    assert [row["pii"] for row in rows] == [None, "email 1", "phone 1"]
    assert pq.read_schema(folder / "train/part-00000.parquet").field("pii").type == "string"


def test_a_drop_without_match_or_score_has_typed_columns(write: Any):
    folder, _ = write("out")
    schema = pq.read_schema(folder / "dropped.parquet")
    assert schema.names[:5] == ["step", "reason", "detail", "matched_id", "score"]
    assert (schema.field("matched_id").type, schema.field("score").type) == ("string", "double")
