"""What the manifest says of a preparation: steps, sources, groups of duplicates, warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Message, Origin, Record
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.hashing import hash_text
from luthier.corpus.clean import Cleaned
from luthier.corpus.outcome import Written
from luthier.corpus.pipeline import PlannedStep, run_steps
from luthier.corpus.readers.source import Source
from luthier.corpus.record import columns_of, select
from luthier.corpus.statistics import Tally
from luthier.recipes.corpus_account import (
    corpus_warnings,
    describe_steps,
    duplicate_groups,
    formats_found,
    source_accounts,
)


@dataclass(frozen=True)
class DropLike:
    """Drops rows by number, each for the number of the row that it is like."""

    like: Mapping[int, int | None]
    name: str = "near"

    def __call__(self, columns: Columns) -> StepResult:
        drops = [
            Drop(id_, "dup", "", None if (kept := self.like[number]) is None else f"f#{kept}")
            for id_ in columns["id"]
            if (number := int(id_.split("#")[1])) in self.like
        ]
        gone = {drop.id for drop in drops}
        kept_rows = select(columns, [id_ not in gone for id_ in columns["id"]])
        return StepResult(kept_rows, drops, Counter(looked_at=len(columns["id"])))


def cleaned(
    root: Path, num_rows: int, *steps: PlannedStep, batch: int = 3, **counts: int
) -> Cleaned:
    rows = [Record(Origin("f", n), (Message("user", f"{n}"),)) for n in range(num_rows)]
    parts = [columns_of(rows[at : at + batch], "f") for at in range(0, num_rows, batch)]
    read = [(StepResult(part, counts=Counter(counts)), part) for part in parts]
    return Cleaned(tuple(run_steps(lambda: read, "k", steps, root)))


def step(name: str, rows_in: int, **dropped: int) -> dict[str, Any]:
    return {"name": name, "rows_in": rows_in, "dropped": dropped}


def split(rows: int, num_relatives: int = 0) -> dict[str, Any]:
    audit = {"share": num_relatives / rows if rows else 0.0, "num_relatives": num_relatives}
    return {"audit": audit, "val": {"rows": rows}}


def test_reading_and_each_step_give_account(tmp_path: Path):
    steps = [PlannedStep(DropLike({1: 0, 5: 0}), {"near_threshold": 0.6})]
    read, near = describe_steps(cleaned(tmp_path, 7, *steps), steps)
    assert (read["name"], read["rows_in"], read["rows_out"]) == ("read", 7, 7)
    assert (read["settings"], read["dropped"]) == ({}, {})
    assert (near["name"], near["rows_in"], near["rows_out"]) == ("near", 7, 5)
    assert near["dropped"] == {"dup": 2}
    assert near["counts"] == {"looked_at": 7}
    assert near["settings"] == {"near_threshold": 0.6}
    assert not near["from_cache"]
    again = describe_steps(cleaned(tmp_path, 7, *steps), steps)
    assert [account["from_cache"] for account in again] == [True, True]


def test_formats_are_told_of_each_source_and_counted_over_all(tmp_path: Path):
    counts = {"format_alpaca@own": 2, "format_text@own": 1, "format_alpaca@b@c.jsonl": 4}
    found = cleaned(tmp_path, 6, **counts)  # in two batches
    assert formats_found(found.outcomes[0]) == {
        "own": {"alpaca": 4, "text": 2},
        "b@c.jsonl": {"alpaca": 8},
    }
    (read,) = describe_steps(found, [])
    assert read["counts"] == {"format_alpaca": 12, "format_text": 2}


def test_groups_of_duplicates_are_counted_with_the_row_that_is_kept(tmp_path: Path):
    near = PlannedStep(DropLike({1: 0, 4: 0, 6: 2, 7: 0, 8: 3, 9: None}), {})
    quality = PlannedStep(DropLike({5: 3}, name="quality"), {})
    found = duplicate_groups(cleaned(tmp_path, 12, near, quality))
    assert found == {
        "near": {"groups": 3, "rows": 5, "largest": [["f#0", 4], ["f#2", 2], ["f#3", 2]]}
    }


def test_the_ten_largest_groups_are_named(tmp_path: Path):
    near = PlannedStep(DropLike({20 + n: n for n in range(12)} | {40: 11}), {})
    found = duplicate_groups(cleaned(tmp_path, 50, near))["near"]
    assert (found["groups"], found["rows"], len(found["largest"])) == (12, 13, 10)
    assert found["largest"][0] == ["f#11", 3]


def test_a_step_without_duplicates_has_no_groups(tmp_path: Path):
    found = duplicate_groups(cleaned(tmp_path, 3, PlannedStep(DropLike({}, name="exact"), {})))
    assert found == {"exact": {"groups": 0, "rows": 0, "largest": []}}


def written(before: dict[str, int], after: dict[str, int]) -> Written:
    return Written(after=Tally(sources=Counter(after)), before=Tally(sources=Counter(before)))


def accounts(sources: Sequence[Source], inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    formats = {"web": {"alpaca": 7, "text": 2}}
    return source_accounts(sources, inputs, written({"web": 9, "own": 4}, {"web": 6}), formats)


def test_each_source_is_accounted_for():
    sources = [Source("own", Path("raw/own.csv"), weight=2.0), Source("web", hub="people/web")]
    own, web = accounts(sources, [{"sha256": "abc", "bytes": 10}, {"fingerprint": "def"}])
    assert own == {
        "name": "own",
        "path": "raw/own.csv",
        "bytes": 10,
        "sha256": "abc",
        "formats": {},
        "rows": 4,
        "rows_left": 0,
        "weight": 2.0,
    }
    assert (web["path"], web["bytes"], web["sha256"]) == ("people/web", 0, "def")
    assert (web["rows"], web["rows_left"], web["weight"]) == (9, 6, None)
    assert web["formats"] == {"alpaca": 7, "text": 2}


@pytest.mark.parametrize(
    ("paths", "folder"),
    [
        (("raw/a.jsonl", "raw/b.jsonl", "raw/c.jsonl"), "raw"),
        (("raw/en/a.jsonl", "raw/en/b.jsonl", "raw/zh/a.jsonl"), "raw"),
        (("raw/a.jsonl", "raw/en/b.jsonl", "raw/en/c.jsonl"), "raw"),
        (("/x/raw/en/a.jsonl", "/x/raw/zh/b.jsonl", "/x/own/c.jsonl"), "/x"),
    ],
)
def test_files_under_one_name_are_one_source(paths: tuple[str, ...], folder: str):
    sources = [Source("web", Path(path), part=path) for path in paths]
    inputs = [{"sha256": f"hash{n}", "bytes": 10 + n} for n in range(3)]
    (web,) = accounts(sources, inputs)
    assert (web["path"], web["bytes"]) == (folder, 33)
    # Each row is counted once, and not once for each file of its source.
    assert (web["rows"], web["rows_left"]) == (9, 6)
    changed = [*inputs[:2], {"sha256": "other", "bytes": 12}]
    assert web["sha256"] != accounts(sources, changed)[0]["sha256"]
    first = hash_text("hash0 hash1")
    assert web["sha256"] == hash_text(f"{first} hash2")


def test_a_step_that_drops_over_a_fifth_is_worth_a_look():
    found = corpus_warnings(
        [step("read", 10), step("quality", 1000, too_long=150, symbols=51)], None
    )
    (warning,) = found
    assert str(warning) == "quality: dropped 201 of 1,000 rows (20.1 %): look at some"


@pytest.mark.parametrize("rows_in", [5, 10, 15, 35, 1000])
def test_just_a_fifth_is_not_too_much(rows_in: int):
    assert corpus_warnings([step("quality", rows_in, too_long=rows_in // 5)], None) == []
    (_,) = corpus_warnings([step("quality", rows_in, too_long=rows_in // 5 + 1)], None)


def test_rows_that_a_setting_leaves_out_are_no_surprise():
    assert corpus_warnings([step("sample", 10, not_sampled=9)], None) == []
    assert corpus_warnings([step("read", 100, not_sampled=60, truncated=20)], None) == []
    (warning,) = corpus_warnings([step("read", 100, not_sampled=60, truncated=21)], None)
    assert "dropped 21 of 100 rows" in warning.reason


def test_no_rows_are_no_reason_to_warn():
    assert corpus_warnings([step("near", 0)], None) == []


def test_validation_rows_with_a_twin_in_training():
    assert corpus_warnings([], split(8)) == []
    (warning,) = corpus_warnings([], split(8, num_relatives=2))
    assert str(warning).startswith("val_file: 25.0 % of the validation rows have a near-twin")


def test_an_empty_validation_side():
    (warning,) = corpus_warnings([], split(0))
    assert str(warning) == "val_file: no validation row is left"
