"""Rows of a prepared corpus as people see them: drawn by seed, and trusted only unchanged."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import DataError
from luthier.corpus import outcome
from luthier.corpus.runners import InProcess
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus import prepare_corpus
from luthier.recipes.corpus_command import resolve_prepare
from luthier.recipes.corpus_rows import dropped_rows, kept_rows

NUM_ROWS = 30
TWINS = 4


def sentences(draw: random.Random) -> str:
    return " ".join(draw.choices([f"word{n}" for n in range(500)], k=20)) + "."


def made_rows() -> list[dict[str, str]]:
    draw = random.Random(3)
    return [{"instruction": sentences(draw), "output": sentences(draw)} for _ in range(NUM_ROWS)]


def prepare(tmp_path: Path, rows: list[dict[str, str]], *flags: str) -> Path:
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = read_flags(
        [str(data), "--steps", "schema,exact", "--min_answer_chars", "0", *flags], many_words=True
    )
    plan = resolve_prepare(command).plan
    return prepare_corpus(plan, tmp_path / "out", InProcess(), lambda *_: None).folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """30 rows, six of them for validation by chance; four copies and an empty row are dropped."""
    rows = made_rows()
    copies = [{**row, "instruction": row["instruction"].upper()} for row in rows[:TWINS]]
    empty = {"instruction": "What is left?", "output": " "}
    return prepare(tmp_path, [*rows, *copies, empty], "--val_size", "0.2")


def ids(rows: Any) -> list[str]:
    return [row["id"] for row in rows]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def test_all_rows_of_a_side_in_their_order(corpus: Path):
    sides = {side: ids(kept_rows(corpus, side, 1000, 0)) for side in ("train", "val")}
    assert sorted(sides["train"] + sides["val"]) == sorted(f"a.jsonl#{n}" for n in range(NUM_ROWS))
    for side in sides.values():
        assert side == sorted(side, key=lambda id_: int(id_.split("#")[1]))
        assert side


def test_a_row_has_its_origin_and_its_text(corpus: Path, tmp_path: Path):
    rows = {row["id"]: row for side in ("train", "val") for row in kept_rows(corpus, side, 99, 0)}
    asked = made_rows()[7]
    assert rows["a.jsonl#7"] == {
        "id": "a.jsonl#7",
        "origin": f"{tmp_path}/a.jsonl:8",
        "text": f"user: {asked['instruction']}\nassistant: {asked['output']}",
    }


def test_rows_are_drawn_by_seed_and_none_twice(corpus: Path):
    drawn = [ids(kept_rows(corpus, "train", 8, seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for some in drawn:
        assert len(some) == len(set(some)) == 8
    every = ids(kept_rows(corpus, "train", 1000, 0))
    # Not just the first ones, and in the order of the corpus.
    assert drawn[0] != every[:8]
    assert drawn[0] == [id_ for id_ in every if id_ in drawn[0]]


def test_rows_are_drawn_over_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "ROWS_PER_SHARD", 1)
    rows = [{"instruction": f"Say {n}.", "output": f"{n}."} for n in range(2100)]
    folder = prepare(tmp_path, rows, "--steps", "schema")
    assert len(list((folder / "train").iterdir())) == 3
    every = ids(kept_rows(folder, "train", 9000, 0))
    assert every == [f"a.jsonl#{n}" for n in range(2100)]
    drawn = ids(kept_rows(folder, "train", 200, 0))
    assert len(set(drawn)) == 200
    assert {int(id_.split("#")[1]) // 1000 for id_ in drawn} == {0, 1, 2}


def test_an_unknown_side(corpus: Path):
    with pytest.raises(DataError, match=r"there is no side vall\n  Did you mean val\?"):
        list(kept_rows(corpus, "vall", 3, 0))


def test_a_side_without_rows(tmp_path: Path):
    folder = prepare(tmp_path, made_rows())
    with pytest.raises(DataError, match=r"no rows on the side val\n  Prepare it with val_size"):
        list(kept_rows(folder, "val", 3, 0))


def test_a_folder_that_is_no_corpus(tmp_path: Path):
    for rows in (kept_rows(tmp_path, "train", 3, 0), dropped_rows(tmp_path, "all", 3, 0)):
        with pytest.raises(DataError, match="no corpus that luthier prepared"):
            list(rows)


@pytest.mark.parametrize(
    ("name", "show", "what"),
    [("train/part-00000.parquet", kept_rows, "train"), ("dropped.parquet", dropped_rows, "all")],
)
def test_a_changed_file_is_not_shown(corpus: Path, name: str, show: Any, what: str):
    damage(corpus / name)
    with pytest.raises(DataError, match=rf"{name}: .* was changed or is damaged"):
        list(show(corpus, what, 3, 0))
    (corpus / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: a file of the prepared corpus is missing"):
        list(show(corpus, what, 3, 0))


def test_a_twin_in_a_changed_file_is_not_shown(corpus: Path):
    damage(corpus / "train/part-00000.parquet")
    with pytest.raises(DataError, match="was changed or is damaged"):
        list(dropped_rows(corpus, "dup_exact", 3, 0))


def test_a_dropped_row_is_paired_with_the_one_that_it_is_like(corpus: Path):
    rows = list(dropped_rows(corpus, "dup_exact", 1000, 0))
    assert ids(rows) == [f"a.jsonl#{NUM_ROWS + n}" for n in range(TWINS)]
    for number, (row, asked) in enumerate(zip(rows, made_rows(), strict=False)):
        assert (row["step"], row["reason"]) == ("exact", "dup_exact")
        assert row["matched_id"] == f"a.jsonl#{number}"
        assert row["text"].startswith(f"user: {asked['instruction'].upper()}\n")
        assert row["matched_text"].startswith(f"user: {asked['instruction']}\n")


def test_a_twin_may_be_dropped_itself(tmp_path: Path):
    row = made_rows()[0]
    own = tmp_path / "own.py"
    own.write_text(
        "def none_upper(row):\n    return not row['messages'][0]['content'].isupper()\n",
        encoding="utf-8",
    )
    shouted = {**row, "instruction": row["instruction"].upper()}
    folder = prepare(
        tmp_path,
        [shouted, {**shouted}, *made_rows()[1:]],
        *("--steps", "exact,none_upper", "--step_file", str(own)),
    )
    (copy,) = dropped_rows(folder, "dup_exact", 9, 0)
    assert (copy["id"], copy["matched_id"]) == ("a.jsonl#1", "a.jsonl#0")
    assert copy["matched_text"] == copy["text"]


def test_all_stands_for_every_reason(corpus: Path):
    rows = list(dropped_rows(corpus, "all", 1000, 0))
    assert sorted({row["reason"] for row in rows}) == ["dup_exact", "empty_turn"]
    assert len(rows) == TWINS + 1
    (empty,) = [row for row in rows if row["reason"] == "empty_turn"]
    assert (empty["matched_id"], empty["matched_text"], empty["score"]) == (None, None, None)
    assert empty["text"] == "user: What is left?\nassistant: "


def test_dropped_rows_are_drawn_by_seed_and_none_twice(corpus: Path):
    drawn = [tuple(ids(dropped_rows(corpus, "all", 2, seed))) for seed in range(8)]
    assert all(len(set(some)) == 2 for some in drawn)
    assert len(set(drawn)) > 1
    assert ids(dropped_rows(corpus, "all", 2, 5)) == list(drawn[5])


def test_a_reason_for_which_no_row_was_dropped(corpus: Path):
    with pytest.raises(DataError, match=r"the reason dup_exct\n  Did you mean dup_exact\?"):
        list(dropped_rows(corpus, "dup_exct", 3, 0))
    with pytest.raises(DataError, match=r"Known: all, dup_exact, empty_turn\."):
        list(dropped_rows(corpus, "pii", 3, 0))


def test_a_corpus_without_drops(tmp_path: Path):
    folder = prepare(tmp_path, made_rows())
    with pytest.raises(DataError, match="no row was dropped\n  There is nothing to show"):
        list(dropped_rows(folder, "all", 3, 0))
