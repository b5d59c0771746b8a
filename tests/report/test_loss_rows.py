"""Rows coloured by loss: before and after side by side, or what there is of it."""

from __future__ import annotations

import pytest

from luthier.cli.inspect import LOSSES
from luthier.report.loss_rows import LIMITS, legend, loss_rows
from luthier.report.reported_run import ReportedRun


def test_before_and_after(reported: ReportedRun) -> None:
    (row,) = loss_rows(reported.shown_rows)
    assert (row.origin, row.side.en, row.judgement) == ("rows.json:3", "validation", None)
    before, after = row.texts
    assert (before.title.en, after.title.en) == ("before training", "after training")
    assert [piece.css for piece in before.pieces] == ["seen", "l3", "l2"]
    assert [piece.css for piece in after.pieces] == ["seen", "l0", "l1"]
    assert [piece.loss for piece in after.pieces] == ["", "0.25", "1.00"]
    assert before.mean is not None
    assert before.mean.en == "mean loss 4.500"


@pytest.mark.parametrize(
    ("has_before", "step", "titles"),
    [(True, None, ["before training"]), (False, 8, ["step 8"]), (False, None, [])],
)
def test_one_of_them_alone(has_before: bool, step: int | None, titles: list[str]) -> None:
    row = {"origin": "a:1", "side": "train", "judgement": "worse", "pieces": [{"text": "x"}]}
    (found,) = loss_rows({"step": step, "has_before": has_before, "rows": [row]})
    assert [text.title.en for text in found.texts] == titles
    assert found.judgement is not None
    assert found.judgement.en == "worse answer"
    assert all(text.mean is None for text in found.texts)


def test_a_run_without_such_rows_has_none() -> None:
    assert loss_rows({}) == []


def test_the_classes_are_those_of_the_terminal() -> None:
    assert [limit for limit, _, _ in LOSSES][:-1] == list(LIMITS)
    assert [name.en for _, name in legend()] == [words for _, words, _ in LOSSES]
