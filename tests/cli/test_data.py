"""`luthier data`: rows of a prepared corpus, what was dropped from it, and whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.cli import data
from luthier.core.errors import DataError
from luthier.corpus.runners import InProcess
from luthier.recipes.config_flags import read_flags
from luthier.recipes.corpus import prepare_corpus
from luthier.recipes.corpus_command import resolve_prepare

QUESTIONS = ("Where is the lake?", "Who wrote the letter?", "What does a luthier do all day?")


def show(
    folder: Path,
    *,
    dropped: str | None = None,
    side: str = "train",
    num_rows: int = 9,
    seed: int = 0,
) -> None:
    data.show(str(folder), dropped=dropped, side=side, num_rows=num_rows, seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of three rows, of which one came twice and one has no answer."""
    root = tmp_path_factory.mktemp("corpus")
    rows = [{"instruction": text, "output": f"[{text}]"} for text in QUESTIONS]
    rows += [rows[1], {"instruction": "Empty?", "output": ""}]
    raw = root / "raw.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ["--steps", "schema,exact", "--min_answer_chars", "0"]
    plan = resolve_prepare(read_flags([str(raw), *flags], many_words=True)).plan
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(root / "cache"))
        prepare_corpus(plan, root / "out", InProcess(), lambda *_: None)
    return root / "out"


def test_rows_with_where_they_come_from(folder: Path, capture: Any):
    out = capture(data)
    show(folder)
    text = out.getvalue()
    for number, question in enumerate(QUESTIONS):
        assert f"raw.jsonl#{number}  " in text
        assert f"user: {question}" in text
        assert f"assistant: [{question}]" in text
    assert "Empty?" not in text


def test_as_many_rows_as_are_wanted_drawn_by_seed(folder: Path, capture: Any):
    def shown(seed: int) -> str:
        out = capture(data)
        show(folder, num_rows=1, seed=seed)
        assert out.getvalue().count("user: ") == 1
        return out.getvalue()

    assert shown(0) == shown(0)
    assert len({shown(seed) for seed in range(20)}) == len(QUESTIONS)


def test_a_dropped_row_beside_the_kept_one(folder: Path, capture: Any):
    out = capture(data)
    show(folder, dropped="dup_exact")
    text = out.getvalue()
    assert "raw.jsonl#3 ─" in text
    assert "kept: raw.jsonl#1" in text
    assert text.count("[Who wrote the letter?]") == 2
    assert "raw.jsonl#4" not in text


def test_dropped_rows_of_any_reason(folder: Path, capture: Any):
    out = capture(data)
    show(folder, dropped="all")
    assert "raw.jsonl#3 ─" in out.getvalue()
    assert "raw.jsonl#4 ─" in out.getvalue()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dropped": "dup_exat"}, r"no row was dropped for the reason dup_exat\n.*dup_exact\?"),
        ({"dropped": "length"}, r"reason length\n  Known: all, dup_exact, empty_turn\."),
        ({"side": "test"}, "there is no side test"),
        ({"side": "val"}, r"no rows on the side val\n  Prepare it with val_size or val_file"),
    ],
)
def test_what_is_not_there(folder: Path, capture: Any, asked: dict[str, Any], message: str):
    out = capture(data)
    with pytest.raises(DataError, match=message):
        show(folder, **asked)
    assert out.getvalue() == ""


@pytest.mark.parametrize("command", [lambda folder: data.verify(str(folder)), show])
def test_another_folder(tmp_path: Path, capture: Any, command: Any):
    capture(data)
    with pytest.raises(DataError, match=r"is no corpus that luthier prepared\n.*manifest\.json"):
        command(tmp_path)


def test_a_whole_corpus_is_said_to_be_so(folder: Path, capture: Any):
    out = capture(data)
    data.verify(str(folder))
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert any(line.startswith("exact 4 1 dup_exact 1") for line in lines)
    assert any(line.startswith("left 3 of 5 rows (60.0 %)") for line in lines)
    version = json.loads((folder / "manifest.json").read_text("utf-8"))["data_version"]
    assert lines[-2:] == [f"data version {version[:12]}", "whole 2 files are as they were written"]


@pytest.mark.parametrize("name", ["train/part-00000.parquet", "dropped.parquet"])
def test_a_file_that_was_changed_or_is_gone(folder: Path, capture: Any, name: str):
    out = capture(data)
    path, content = folder / name, (folder / name).read_bytes()
    try:
        path.write_bytes(content[:-1] + b"?")
        with pytest.raises(DataError, match=rf"{name}: .*changed or is damaged\n.*Prepare it"):
            data.verify(str(folder))
        path.unlink()
        with pytest.raises(DataError, match=rf"{name}: .*is missing"):
            data.verify(str(folder))
    finally:
        path.write_bytes(content)
    assert out.getvalue() == ""
