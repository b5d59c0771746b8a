from __future__ import annotations

import pytest

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.core.errors import DataError
from luthier.evaluation.generation import Answer
from luthier.evaluation.row_losses import RowLoss
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.evaluation_plan import EvaluationRequest, Measured, Plan
from luthier.recipes.evaluation_rows import EvaluationRow, EvaluationRows
from luthier.recipes.evaluation_scores import NUM_CHANGED, score

NUM_ROWS = 12


def conversation(number):
    turns = (Message("user", f"Q{number}"), Message("assistant", f"word {number}"))
    return EvaluationRow(Conversation(turns, Origin("rows", number, number)), {"n": number})


DATA = EvaluationRows([conversation(number) for number in range(NUM_ROWS)], "rows", "rows.jsonl")


def measured(answers, nats=None, left_out=None):
    """What a model came to that gave these answers, by the number of the row."""
    return Measured(
        "model",
        {number: RowLoss(value, 1, 4) for number, value in (nats or {}).items()},
        {number: Answer(text, 1, "stop") for number, text in answers.items()},
        [left_out or {}],
    )


def plan(*metrics, perplexity=False, predict=False):
    return Plan(perplexity, metrics, (), predict, GenerationSettings())


def right(*numbers):
    return {n: f"word {n}" if n in numbers else "no" for n in range(NUM_ROWS)}


def call(measured_by_role, what):
    return score(EvaluationRequest("m"), "n", DATA, what, measured_by_role)


def test_two_models_are_compared_on_the_rows_that_both_took():
    tuned = measured({0: "word 0", 1: "word 1", 2: "no"}, left_out={3: "too long"})
    base = measured({1: "no", 2: "no", 3: "word 3"}, left_out={0: "refused", 3: "also"})
    found = call({"base": base, "tuned": tuned}, plan("exact_match"))
    result = found.metrics["exact_match"]
    assert result.estimate.num_rows == 2
    assert result.base is not None
    assert result.difference is not None
    assert (result.base.value, result.estimate.value) == (0, 0.5)
    assert (result.difference.wins, result.difference.losses, result.difference.ties) == (1, 0, 1)
    assert found.left_out == [("rows:0", "refused"), ("rows:3", "also")]


def test_the_rows_that_changed_most_come_first_by_what_became_better():
    base, tuned = measured(right(0, 1, 2, 3, 4)), measured(right(0, 1, 7, 8, 9, 10))
    found = call({"base": base, "tuned": tuned}, plan("exact_match"))
    assert [row.origin for row in found.changed] == [
        *("rows:7", "rows:8", "rows:9"),
        *("rows:4", "rows:3", "rows:2"),
    ]
    first = found.changed[0]
    assert (first.prompt, first.reference) == ("Q7", "word 7")
    assert (first.base, first.tuned, first.base_answer, first.tuned_answer) == (
        *(0.0, 1.0),
        *("no", "word 7"),
    )
    assert len(found.changed) == 2 * NUM_CHANGED


def test_where_no_answer_changed_the_loss_tells_what_did():
    same = right(0)
    base = measured(same, dict.fromkeys(range(NUM_ROWS), 2.0))
    tuned = measured(same, {n: 1.0 if n == 5 else 2.0 for n in range(NUM_ROWS)})
    found = call({"base": base, "tuned": tuned}, plan("exact_match", perplexity=True))
    (row,) = found.changed
    assert (row.metric, row.origin) == ("perplexity", "rows:5")
    assert row.tuned < row.base


def test_where_nothing_changed_no_row_is_shown():
    one = measured(right(0))
    assert call({"base": one, "tuned": one}, plan("exact_match")).changed == []
    assert call({"base": one, "tuned": one}, plan(predict=True)).changed == []


def test_predictions_hold_every_answer_of_the_tuned_model():
    tuned, base = measured({0: "a", 2: "word 2"}), measured({2: "b"})
    found = call({"base": base, "tuned": tuned}, plan("exact_match", predict=True))
    assert found.predictions is not None
    first, second = found.predictions
    assert (first["answer"], first["metrics"]) == ("a", {})
    assert "base_answer" not in first
    assert second["metrics"] == {"exact_match": 1.0}
    assert (second["base_answer"], second["base_metrics"]) == ("b", {"exact_match": 0.0})


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ({"tuned": measured({}, left_out={0: "too long"})}, "the first: too long"),
        (
            {"base": measured({0: "a"}), "tuned": measured({1: "b"})},
            "none of the 12 rows could be measured by both models",
        ),
    ],
)
def test_without_a_row_there_is_no_result(roles, message):
    with pytest.raises(DataError, match=message):
        call(roles, plan("exact_match"))
