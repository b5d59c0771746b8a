"""Rows for preference stages: each format that is known, and why others can't be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Corpus, Message, Record
from luthier.core.errors import DataError
from luthier.corpus.load import load_judged
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings

DATA = Path(__file__).parents[2].parent / "shared" / "data"

Q, GOOD, BAD = Message("user", "q"), Message("assistant", "good"), Message("assistant", "bad")
TURNS = [{"role": "user", "content": "q"}]
PAIRS: dict[str, dict[str, Any]] = {
    "prompt": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "alpaca": {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
    "messages": {
        "messages": TURNS,
        "chosen": {"role": "assistant", "content": "good"},
        "rejected": [{"role": "assistant", "content": "bad"}],
    },
    "sharegpt": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "whole": {
        "chosen": [*TURNS, {"role": "assistant", "content": "good"}],
        "rejected": [*TURNS, {"role": "assistant", "content": "bad"}],
    },
}
VERDICTS: dict[str, dict[str, Any]] = {
    "label": {"prompt": "q", "completion": "good", "label": True},
    "kto_tag": {"instruction": "q", "output": "good", "kto_tag": True},
    "messages": {
        "messages": [*TURNS, {"role": "assistant", "content": "good"}],
        "label": True,
    },
}


def load(path: Path, kind: Any, *, columns: Any = None, **settings: Any) -> Corpus[Record]:
    source = Source(str(path), path=path, columns=columns or {})
    return load_judged([source], CorpusSettings(**settings), kind)


@pytest.mark.parametrize("form", list(PAIRS))
def test_pairs(write_rows, form: str):
    (row,) = load(write_rows("a.jsonl", [PAIRS[form]]), "pairs").conversations
    assert (row.messages, row.chosen, row.rejected) == ((Q,), (GOOD,), (BAD,))
    assert str(row.origin).endswith("a.jsonl:1")


@pytest.mark.parametrize(("said", "margin"), [({}, None), (1.5, 1.5), ("2", 2.0), ("", None)])
def test_by_how_much_an_answer_is_better(write_rows, said: Any, margin: float | None):
    path = write_rows("a.jsonl", [PAIRS["messages"] | ({"margin": said} if said != {} else {})])
    corpus = load(path, "pairs")
    assert corpus.conversations[0].margin == margin
    assert not corpus.unused
    path = write_rows("b.jsonl", [{**PAIRS["messages"], "margin": "much"}])
    with pytest.raises(DataError, match=r"b\.jsonl:1: .*margin is 'much', a number from 0 up"):
        load(path, "pairs")


@pytest.mark.parametrize("form", list(VERDICTS))
@pytest.mark.parametrize("wanted", [True, False])
def test_verdicts(write_rows, form: str, wanted: bool):
    key = "kto_tag" if form == "kto_tag" else "label"
    path = write_rows("a.jsonl", [{**VERDICTS[form], key: wanted}])
    (row,) = load(path, "verdicts").conversations
    assert (row.messages, row.label, row.chosen) == ((Q, GOOD), wanted, None)


@pytest.mark.parametrize(
    ("kind", "row", "message"),
    [
        ("pairs", {"prompt": "q", "chosen": "a"}, "the field rejected is missing"),
        ("pairs", {"prompt": "q", "chosen": None, "rejected": "b"}, "the field chosen is missing"),
        ("pairs", {"prompt": "q", "response": "a"}, "the fields chosen and rejected are missing"),
        (
            "pairs",
            {"chosen": "a", "rejected": "b"},
            "ranks answers, and no field holds their prompt",
        ),
        ("pairs", {"prompt": " ", "chosen": "a", "rejected": "b"}, "is blank"),
        ("pairs", {"prompt": "q", "chosen": [], "rejected": "b"}, "chosen is empty"),
        ("verdicts", {"prompt": "q", "completion": "a"}, "the field label or kto_tag is missing"),
        (
            "verdicts",
            {"prompt": "q", "completion": "a", "label": 3},
            "label or kto_tag is neither true nor false",
        ),
        ("verdicts", {**PAIRS["prompt"], "label": True}, "the row ranks two answers"),
        (
            "pairs",
            {**PAIRS["messages"], "tools": '[{"name": "f"}]'},
            "tools and calls of tools are not supported",
        ),
        (
            "pairs",
            {**PAIRS["messages"], "chosen": {"role": "assistant", "content": "a", "weight": 0.5}},
            "a turn of an answer has the weight 0.5",
        ),
    ],
)
def test_rows_that_can_not_be_used(write_rows, kind: str, row: dict[str, Any], message: str):
    good = {**PAIRS["prompt"]} if kind == "pairs" else VERDICTS["label"]
    path = write_rows("a.jsonl", [good, row])
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{message}"):
        load(path, kind)
    skipped = load(path, kind, on_bad_row="skip")
    assert (len(skipped.conversations), len(skipped.rejections)) == (1, 1)
    assert message in skipped.rejections[0].detail


def test_declared_names_of_fields(write_rows):
    path = write_rows("a.jsonl", [{"prompt": "q", "better": "good", "worse": "bad"}])
    (row,) = load(path, "pairs", columns={"chosen": "better", "rejected": "worse"}).conversations
    assert (row.chosen, row.rejected) == ((GOOD,), (BAD,))
    with pytest.raises(DataError, match="the field preferred is missing"):
        load(path, "pairs", columns={"chosen": "preferred", "rejected": "worse"})
    path = write_rows("b.jsonl", [{"prompt": "q", "completion": "good", "ok": False}])
    (row,) = load(path, "verdicts", columns={"kto_tag": "ok"}).conversations
    assert row.label is False


def test_a_text_holds_no_pair(write_rows):
    path = write_rows("a.jsonl", [{"text": "x", "chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match="the row holds no chosen and rejected answers"):
        load(path, "pairs", columns={"text": "text"})


def test_weights_of_row_and_task_multiply(write_rows):
    rows = [{**PAIRS["prompt"], "weight": 0.5, "kind": "a"}, {**PAIRS["prompt"], "kind": "b"}]
    path = write_rows("a.jsonl", rows)
    corpus = load(path, "pairs", task_column="kind", task_weights={"a": 3.0})
    assert [(row.task, row.weight) for row in corpus.conversations] == [("a", 1.5), ("b", 1.0)]


@pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not on this machine")
def test_the_lectures_pairs():
    corpus = load(DATA / "dpo_en_demo.json", "pairs")
    assert len(corpus.conversations) == 300
    assert corpus.rejections == []
