from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.errors import DataError
from luthier.corpus.clean import Cleaned, clean
from luthier.corpus.pipeline import PlannedStep
from luthier.corpus.readers.source import Source
from luthier.corpus.record import select
from luthier.corpus.settings import CorpusSettings


@dataclass(frozen=True)
class DropQuestions:
    """Drops rows whose answer asks back."""

    name: str = "asks"

    def __call__(self, columns: Columns) -> StepResult:
        asks = [row[-1]["content"].endswith("?") for row in columns["messages"]]
        drops = [
            Drop(id_, "asks_back", "the answer is a question")
            for id_, gone in zip(columns["id"], asks, strict=True)
            if gone
        ]
        return StepResult(select(columns, [not gone for gone in asks]), drops)


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    rows: dict[str, list[dict[str, Any]]] = {
        "b.jsonl": [
            {"instruction": "q1", "output": "a1"},
            {"instruction": "q2", "output": "what?"},
        ],
        "a.jsonl": [{"instruction": "q3", "output": 7}, {"instruction": "q4", "output": "a4"}],
    }
    found: list[Source] = []
    for name, content in rows.items():
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        found.append(Source(name=name, path=path))
    return found


def run(sources: list[Source], root: Path, on_bad_row: Any = "skip") -> Cleaned:
    settings = CorpusSettings(train_file="a.jsonl", on_bad_row=on_bad_row)
    return clean(sources, "inputs", settings, [PlannedStep(DropQuestions(), {})], root)


def test_every_row_is_left_or_dropped_with_a_reason(sources: list[Source], tmp_path: Path):
    cleaned = run(sources, tmp_path / "root")
    assert cleaned.rows_read == 4
    assert cleaned.rows_left == 2
    assert cleaned.num_dropped() == {"wrong_type": 1, "asks_back": 1}


def test_the_order_of_the_sources_does_not_matter(sources: list[Source], tmp_path: Path):
    one = run(sources, tmp_path / "one")
    two = run(sources[::-1], tmp_path / "two")
    assert [o.account.files for o in one.outcomes] == [o.account.files for o in two.outcomes]


def test_a_dropped_row_says_which_step_dropped_it(sources: list[Source], tmp_path: Path):
    dropped = list(run(sources, tmp_path / "root").dropped_rows())
    assert [(row["step"], row["id"]) for row in dropped] == [
        ("read", "a.jsonl#0"),
        ("asks", "b.jsonl#1"),
    ]


def test_a_bad_row_ends_it_where_the_user_wants_that(sources: list[Source], tmp_path: Path):
    with pytest.raises(DataError, match="output is the number 7"):
        run(sources, tmp_path / "root", on_bad_row="error")
    assert list((tmp_path / "root").iterdir()) == []


@dataclass(frozen=True)
class KeepAll:
    """Compares rows by their answer, and drops none."""

    name: str = "keeps"

    def sketch(self, columns: Columns) -> Columns:
        return {"id": columns["id"], "said": [row[-1]["content"] for row in columns["messages"]]}

    def decide(self, sketches: Columns) -> list[Drop]:
        return []


@dataclass(frozen=True)
class Rename:
    """Changes a column."""

    name: str = "renames"

    def __call__(self, columns: Columns) -> StepResult:
        return StepResult({**columns, "task": ["other"] * len(columns["id"])})


def test_sketches_hold_until_a_row_is_changed(sources: list[Source], tmp_path: Path):
    def sketches(*steps: Any) -> set[str]:
        planned = [PlannedStep(step, {}) for step in steps]
        settings = CorpusSettings(train_file="b.jsonl", on_bad_row="skip")
        root = tmp_path / "-".join(step.name for step in steps)
        done = clean(sources, "k", settings, planned, root, keep_sketches=("said",))
        return set(done.sketches())

    assert sketches(KeepAll(), DropQuestions()) == {"said"}
    assert sketches(Rename(), KeepAll()) == {"said"}
    assert sketches(KeepAll(), Rename()) == set()
