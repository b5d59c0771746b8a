from __future__ import annotations

import pickle
import random
from typing import Any

from luthier.contracts.corpus_step import Columns
from luthier.corpus.steps.exact import ExactDuplicates, ExactSettings


def _row(name: str, prompt: str, answer: str, source: str = "s", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"id": name, "source": source, "messages": messages, "tools": None, "label": None} | more


def _columns(rows: list[dict[str, Any]]) -> Columns:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _drops(rows: list[dict[str, Any]], step: ExactDuplicates) -> dict[str, str | None]:
    return {drop.id: drop.matched_id for drop in step.decide(step.sketch(_columns(rows)))}


def test_same_but_for_case_spacing_and_width():
    rows = [
        _row("b", "Ｓay  HI", "你好！"),
        _row("a", "say hi", "你好!"),
        _row("c", "say hi", "no"),
    ]
    assert _drops(rows, ExactDuplicates()) == {"b": "a"}


def test_what_tells_rows_apart():
    rows = [
        _row("a", "p q", "r"),
        _row("b", "p", "q r"),
        _row("c", "p q", "r", label=True),
        _row("d", "p q", "r", label=False),
        _row("e", "p q", "r", tools="[]"),
    ]
    rows.append(_row("f", "p q", "r"))
    rows[-1]["messages"][1]["role"] = "user"
    assert _drops(rows, ExactDuplicates()) == {}


def test_documents_and_preferences():
    def row(name: str, text: str | None, rejected: str | None) -> dict[str, Any]:
        turns = None if rejected is None else [{"role": "assistant", "content": rejected}]
        return {"id": name, "messages": [], "text": text, "chosen": None, "rejected": turns}

    rows = [row("a", "T", None), row("b", "t", None), row("c", None, "x"), row("d", None, "y")]
    step = ExactDuplicates()
    drops = step.decide(step.sketch(_columns(rows)))
    assert [(drop.id, drop.matched_id, drop.reason, drop.score) for drop in drops] == [
        ("b", "a", "dup_exact", 1.0)
    ]


def test_source_priority_then_least_id():
    rows = [_row("a", "p", "q", "web"), _row("b", "p", "q", "own"), _row("c", "p", "q", "own")]
    assert _drops(rows, ExactDuplicates()) == {"b": "a", "c": "a"}
    step = ExactDuplicates(ExactSettings(exact_source_priority=("own",)))
    assert _drops(rows, step) == {"a": "b", "c": "b"}


def test_order_and_pickling_make_no_difference():
    rows = [_row(str(row), f"p{row % 7}", f"q{row % 3}") for row in range(60)]
    step: ExactDuplicates = pickle.loads(pickle.dumps(ExactDuplicates()))  # noqa: S301
    first = _drops(rows, step)
    assert len(first) == 60 - 21
    assert _drops(random.Random(0).sample(rows, 60), step) == first
