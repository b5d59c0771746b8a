"""Dropped rows for the data card: some of each reason, beside their twins, safe to show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Message, Origin, Record
from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.clean import Cleaned
from luthier.corpus.parts import write_part
from luthier.corpus.pipeline import PlannedStep, run_steps
from luthier.corpus.record import columns_of, select
from luthier.corpus.steps.pii import Pii
from luthier.corpus.steps.settings import PiiSettings
from luthier.recipes.corpus_card import redacted, row_text, rows_in, sampled_drops

ADDRESS = "anna.lee@mail-example.org"


@dataclass(frozen=True)
class Dropping:
    """Drops what a function has a reason for: the reason, and the row that it is like."""

    why: Callable[[str], tuple[str, str | None] | None]
    name: str = "quality"
    detail: str = "as told"

    def __call__(self, columns: Columns) -> StepResult:
        reasons = [self.why(id_) for id_ in columns["id"]]
        drops = [
            Drop(id_, found[0], self.detail, found[1])
            for id_, found in zip(columns["id"], reasons, strict=True)
            if found is not None
        ]
        return StepResult(select(columns, [found is None for found in reasons]), drops)


def chat(number: int, answer: str) -> Record:
    turns = Message("user", f"Question {number}?"), Message("assistant", answer)
    return Record(Origin("f.jsonl", number, number + 1), turns)


def cleaned(root: Path, answers: Sequence[str], *steps: Any, batch: int = 10) -> Cleaned:
    rows = [chat(number, answer) for number, answer in enumerate(answers)]
    parts = [columns_of(rows[at : at + batch], "f") for at in range(0, len(rows), batch)]
    planned = [PlannedStep(step, {}) for step in steps]
    outcomes = run_steps(lambda: [(StepResult(part), part) for part in parts], "k", planned, root)
    return Cleaned(tuple(outcomes))


def test_a_dropped_row_stands_beside_the_one_that_it_is_like(tmp_path: Path):
    step = Dropping(lambda id_: ("dup_near", "f#0") if id_ == "f#3" else None, name="near")
    found = sampled_drops(cleaned(tmp_path, [f"Answer {n}." for n in range(5)], step, batch=2))
    assert found == {
        "dup_near": [
            {
                "step": "near",
                "id": "f#3",
                "origin": "f.jsonl:4",
                "reason": "dup_near",
                "detail": "as told",
                "matched_id": "f#0",
                "score": None,
                "text": "user: Question 3?\nassistant: Answer 3.",
                "matched_text": "user: Question 0?\nassistant: Answer 0.",
            }
        ]
    }


def test_where_nothing_is_dropped_there_is_nothing(tmp_path: Path):
    assert sampled_drops(cleaned(tmp_path, ["One.", "Two."], Dropping(lambda _: None))) == {}


def test_no_reason_has_more_than_twenty(tmp_path: Path):
    odd = Dropping(lambda id_: ("odd" if int(id_[2:]) % 2 else "even", None))
    found = sampled_drops(cleaned(tmp_path, ["Yes."] * 45, odd, batch=7))
    assert {reason: len(rows) for reason, rows in found.items()} == {"even": 20, "odd": 20}
    assert [row["id"] for row in found["even"]] == [f"f#{n}" for n in range(0, 40, 2)]


def test_personal_data_is_hidden_whatever_step_dropped_the_row(tmp_path: Path):
    answers = [f"Write to {ADDRESS}.", f"Mail {ADDRESS} now.", f"Ask {ADDRESS}.", "Nothing."]
    before = Dropping(lambda id_: ("symbols", None) if id_ == "f#0" else None)
    pii = Pii(PiiSettings(pii_action="drop"))
    found = sampled_drops(cleaned(tmp_path, answers, before, pii))
    assert {reason: [row["id"] for row in rows] for reason, rows in found.items()} == {
        "symbols": ["f#0"],
        "pii": ["f#1", "f#2"],
    }
    assert "assistant: Write to <EMAIL_1>." in found["symbols"][0]["text"]
    assert "assistant: Mail <EMAIL_1> now." in found["pii"][0]["text"]
    assert ADDRESS not in repr(found)


def test_personal_data_is_hidden_in_the_twin_and_in_the_detail(tmp_path: Path):
    answers = [f"Write to {ADDRESS}.", "Write to us."]
    step = Dropping(
        lambda id_: ("dup_near", "f#0") if id_ == "f#1" else None,
        detail=f"text after the end: '{ADDRESS}'",
    )
    (row,) = sampled_drops(cleaned(tmp_path, answers, step))["dup_near"]
    assert row["matched_text"].endswith("Write to <EMAIL_1>.")
    assert row["detail"] == "text after the end: '<EMAIL_1>'"


def test_a_twin_that_is_no_row_of_the_corpus_has_no_text(tmp_path: Path):
    step = Dropping(lambda id_: ("leaked", "mmlu.csv:7") if id_ == "f#1" else None)
    (row,) = sampled_drops(cleaned(tmp_path, ["One.", "Two."], step))["leaked"]
    assert (row["matched_id"], row["matched_text"]) == ("mmlu.csv:7", None)


def test_a_twin_that_was_dropped_itself_is_shown(tmp_path: Path):
    first = Dropping(lambda id_: ("dup_exact", "f#1") if id_ == "f#2" else None, name="exact")
    second = Dropping(lambda id_: ("dup_near", "f#0") if id_ == "f#1" else None, name="near")
    found = sampled_drops(cleaned(tmp_path, ["Nil.", "One.", "One."], first, second))
    assert found["dup_exact"][0]["matched_text"] == "user: Question 1?\nassistant: One."
    assert found["dup_near"][0]["matched_text"] == "user: Question 0?\nassistant: Nil."


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """Three files of two rows each."""
    paths = [tmp_path / f"part-{number}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        rows = [chat(2 * number + n, f"Answer {2 * number + n}.") for n in range(2)]
        write_part(columns_of(rows, "f"), path)
    return paths


def test_rows_are_found_over_several_files(parts: list[Path]):
    found = rows_in(parts, {"f#0", "f#1", "f#5", "f#9"})
    assert found.keys() == {"f#0", "f#1", "f#5"}
    assert found["f#5"]["id"] == ["f#5"]
    assert row_text(found["f#5"]).endswith("Answer 5.")


def test_no_file_is_opened_for_no_rows(parts: list[Path]):
    assert rows_in([Path("nowhere.parquet"), *parts], set()) == {}
    assert rows_in([parts[0], Path("nowhere.parquet")], {"f#1"}).keys() == {"f#1"}


def test_redacting_leaves_the_rows_as_they_were():
    rows = {"f#0": columns_of([chat(0, f"Write to {ADDRESS}.")], "f")}
    assert row_text(redacted(rows)["f#0"]).endswith("Write to <EMAIL_1>.")
    assert row_text(rows["f#0"]).endswith(f"Write to {ADDRESS}.")


def test_placeholders_are_numbered_in_each_row_by_itself():
    rows = {
        f"f#{n}": columns_of([chat(n, f"Write to {name}@mail-example.org.")], "f")
        for n, name in enumerate(("anna", "bert"))
    }
    texts = [row_text(columns) for columns in redacted(rows).values()]
    assert [text.count("<EMAIL_1>") for text in texts] == [1, 1]


def test_all_turns_are_shown_with_their_side():
    pair = Record(
        Origin("f", 0),
        (Message("system", "Be kind."), Message("user", "Hi?")),
        chosen=(Message("assistant", "Hello!"),),
        rejected=(Message("assistant", ""),),
    )
    assert row_text(columns_of([pair], "f")).splitlines() == [
        "system: Be kind.",
        "user: Hi?",
        "chosen assistant: Hello!",
        "rejected assistant: ",
    ]


def test_a_document_is_its_text():
    assert row_text(columns_of([Record(Origin("f", 0), text="A page.")], "f")) == "A page."


def test_a_text_without_end_is_cut_and_says_so():
    text = row_text(columns_of([Record(Origin("f", 0), text="x" * 30_000)], "f"))
    assert text == "x" * 20_000 + "… (30,000 characters)"
