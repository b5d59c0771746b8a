from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from luthier.contracts.conversation import Message, Origin, Record
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.parts import read_parts
from luthier.corpus.pipeline import Part, PlannedStep, StepOutcome, dropped_paths, run_steps
from luthier.corpus.record import columns_of, select
from luthier.corpus.runners import Processes


@dataclass(frozen=True)
class Shout:
    name: str = "shout"

    def __call__(self, columns: Columns) -> StepResult:
        louder = [
            [{**m, "content": m["content"].upper()} for m in row] for row in columns["messages"]
        ]
        kept = {**columns, "messages": louder}
        return StepResult(kept, counts=Counter(shouted=len(louder)))


@dataclass(frozen=True)
class DropShort:
    least: int
    name: str = "short"

    def __call__(self, columns: Columns) -> StepResult:
        long = [len(row[-1]["content"]) >= self.least for row in columns["messages"]]
        drops = [
            Drop(id_, "short_answer", f"less than {self.least} characters")
            for id_, kept in zip(columns["id"], long, strict=True)
            if not kept
        ]
        return StepResult(select(columns, long), drops)


@dataclass(frozen=True)
class DropSame:
    name: str = "same"

    def sketch(self, columns: Columns) -> Columns:
        return {"id": columns["id"], "answer": [row[-1]["content"] for row in columns["messages"]]}

    def decide(self, sketches: Columns) -> list[Drop]:
        first: dict[str, str] = {}
        drops: list[Drop] = []
        for id_, answer in sorted(zip(sketches["id"], sketches["answer"], strict=True)):
            if answer in first:
                drops.append(Drop(id_, "dup_exact", "the same answer", first[answer], 1.0))
            first.setdefault(answer, id_)
        return drops


ANSWERS = ["yes, it is", "no", "yes, it is", "perhaps one day", "perhaps one day", "not at all"]
STEPS = [
    PlannedStep(Shout(), {}),
    PlannedStep(DropShort(3), {"least": 3}),
    PlannedStep(DropSame(), {}),
]


def batches(size: int = 2) -> list[Part]:
    rows = [
        Record(Origin("f.jsonl", i, i + 1), (Message("user", f"{i}?"), Message("assistant", a)))
        for i, a in enumerate(ANSWERS)
    ]
    parts = [columns_of(rows[i : i + size], "f.jsonl") for i in range(0, len(rows), size)]
    return [(StepResult(part), part) for part in parts]


def run(root: Path, steps: Any = STEPS, **options: Any) -> list[StepOutcome]:
    return run_steps(batches, "inputs", steps, root, **options)


def answers(outcome: StepOutcome) -> list[str]:
    return [r[-1]["content"] for part in read_parts(outcome.folder) for r in part["messages"]]


def test_each_step_works_on_what_the_one_before_left(tmp_path: Path):
    outcomes = run(tmp_path)
    assert [o.account.name for o in outcomes] == ["read", "shout", "short", "same"]
    assert [o.account.rows_out for o in outcomes] == [6, 6, 5, 3]
    assert answers(outcomes[-1]) == ["YES, IT IS", "PERHAPS ONE DAY", "NOT AT ALL"]
    assert outcomes[1].account.counts == {"shouted": 6}


def test_every_row_is_accounted_for(tmp_path: Path):
    for outcome in run(tmp_path)[1:]:
        account = outcome.account
        assert account.rows_in == account.rows_out + sum(account.dropped.values())


def test_dropped_rows_are_kept_with_reason_and_content(tmp_path: Path):
    last = run(tmp_path)[-1]
    gone = [row for path in dropped_paths(last.folder) for row in pq.read_table(path).to_pylist()]
    assert [row["id"] for row in gone] == ["f.jsonl#2", "f.jsonl#4"]
    assert [row["matched_id"] for row in gone] == ["f.jsonl#0", "f.jsonl#3"]
    assert [row["reason"] for row in gone] == ["dup_exact"] * 2
    assert gone[0]["messages"][-1]["content"] == "YES, IT IS"


def test_nothing_is_done_twice(tmp_path: Path):
    first = run(tmp_path)
    second = run_steps(lambda: pytest.fail("read again"), "inputs", STEPS, tmp_path)
    assert not any(o.from_cache for o in first)
    assert all(o.from_cache for o in second)
    assert [o.account for o in first] == [o.account for o in second]


def test_only_what_changed_is_done_again(tmp_path: Path):
    run(tmp_path)
    changed = [STEPS[0], PlannedStep(DropShort(11), {"least": 11}), STEPS[2]]
    outcomes = run(tmp_path, changed)
    assert [o.from_cache for o in outcomes] == [True, True, False, False]
    assert answers(outcomes[-1]) == ["PERHAPS ONE DAY"]


def test_a_damaged_result_is_made_again(tmp_path: Path):
    shout = run(tmp_path)[1]
    part = next(shout.folder.glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-1])
    outcomes = run(tmp_path)
    assert [o.from_cache for o in outcomes] == [True, False, True, True]


def test_the_same_for_any_number_of_workers(tmp_path: Path):
    one = run(tmp_path / "one")
    two = run(tmp_path / "two", runner=Processes(2))
    assert [o.account.files for o in one] == [o.account.files for o in two]


def test_a_step_that_fails_leaves_nothing_behind(tmp_path: Path):
    def broken() -> Any:
        yield batches()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_steps(broken, "inputs", STEPS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told(tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    run(tmp_path, report=lambda *facts: told.append(facts))
    assert ("shout", 6, 6) in told
    assert ("same: looking", 5, 5) in told
    assert told[0] == ("read", 2, 0)


def test_an_account_names_the_columns_that_a_step_changed(tmp_path: Path):
    assert [o.account.changed for o in run(tmp_path)] == [[], ["messages"], [], []]


def test_sketches_that_are_wanted_are_kept_by_id(tmp_path: Path):
    wanted = ("answer", "another")
    *_, same = run(tmp_path, keep_sketches=wanted)
    assert set(same.sketches) == {"answer"}
    assert same.sketches["answer"]["f.jsonl#3"] == "PERHAPS ONE DAY"
    assert run(tmp_path / "other")[-1].sketches == {}
    assert run(tmp_path, keep_sketches=wanted)[-1].sketches == {}
