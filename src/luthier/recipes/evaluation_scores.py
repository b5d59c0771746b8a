"""From what was measured of one model, or of two, to metrics, intervals and the rows that changed.

In: losses and answers by the number of their row. Out: an `Evaluation`. Two models are held against
each other on the rows that both could take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from luthier.core.errors import DataError
from luthier.evaluation.intervals import Difference, Estimate, compare, estimate
from luthier.evaluation.metrics.matches import looks_like_math
from luthier.evaluation.metrics.registry import METRICS
from luthier.evaluation.metrics.score import FloatArray, Score
from luthier.evaluation.row_losses import perplexities
from luthier.recipes.evaluated_model import Role
from luthier.recipes.evaluation_plan import EvaluationRequest, Measured, Plan
from luthier.recipes.evaluation_result import Changed, Evaluation, MetricResult
from luthier.recipes.evaluation_rows import EvaluationRow, EvaluationRows

NUM_CHANGED = 3
"""So many rows that became better are shown, and so many that became worse."""


@dataclass(slots=True)
class _Scores:
    """What metrics give one model.

    Attributes:
        scores: Those of rows, by metric.
        places: For each of them, which of its values belongs to which row.
        singles: Numbers that are of all rows together.
    """

    scores: dict[str, Score] = field(default_factory=dict[str, Score])
    places: dict[str, Mapping[int, int]] = field(default_factory=dict[str, Mapping[int, int]])
    singles: dict[str, Estimate] = field(default_factory=dict[str, Estimate])

    def add(self, score: Score, numbers: Sequence[int]) -> None:
        self.scores[score.name] = score
        self.places[score.name] = {number: place for place, number in enumerate(numbers)}

    def of_row(self, number: int) -> dict[str, float]:
        """Return the values of one row, by metric."""
        return {
            name: float(score.row_values[self.places[name][number]])
            for name, score in self.scores.items()
            if number in self.places[name]
        }


def score(
    request: EvaluationRequest,
    name: str,
    data: EvaluationRows | None,
    plan: Plan,
    measured: Mapping[Role, Measured],
) -> Evaluation:
    """Return what an evaluation found.

    Args:
        request: What was asked.
        name: What the results are called.
        data: Its rows; None where only benchmark tasks ran.
        plan: What was measured of them.
        measured: By the role of the model.

    Raises:
        DataError: No row could be measured.
        RunError: A metric of the user's own fails.
        MissingExtraError: A metric needs a package that is not installed.
    """
    tuned, base = measured["tuned"], measured.get("base")
    found: dict[Role, _Scores] = {role: _Scores() for role in measured}
    if data is not None:
        with_loss = _common([model.losses for model in measured.values()])
        answered = _common([model.answers for model in measured.values()])
        for role, model in measured.items():
            _refuse_nothing(data, plan, model, with_loss, answered)
            if plan.perplexity:
                for of_loss in perplexities([model.losses[number] for number in with_loss]):
                    found[role].add(of_loss, with_loss)
            if plan.needs_answers:
                _score_answers(data, plan, model, answered, found[role])
    metrics = {metric: _result(metric, found) for metric in _names(found["tuned"])}
    metrics |= _task_results(tuned, base)
    rows = () if data is None else data.rows
    return Evaluation(
        name=name,
        model=request.model,
        base=None if base is None else base.name,
        data={} if data is None else _describe(data),
        metrics=metrics,
        changed=_changed(rows, measured, found),
        left_out=_left_out(rows, measured.values()),
        notes=_notes(request, data, plan, measured),
        predictions=_predictions(rows, measured, found) if plan.predict else None,
    )


def _common(found: Sequence[Mapping[int, Any]]) -> list[int]:
    numbers = set(found[0]).intersection(*found[1:])
    return sorted(numbers)


def _refuse_nothing(
    data: EvaluationRows, plan: Plan, model: Measured, with_loss: list[int], answered: list[int]
) -> None:
    if (plan.perplexity and not with_loss) or (plan.needs_answers and not answered):
        reasons = [why for left in model.left_out for why in left.values()]
        raise DataError(
            f"none of the {len(data.rows)} rows could be measured; the first: {reasons[0]}"
            if reasons
            else f"none of the {len(data.rows)} rows could be measured by both models",
            where=data.path,
            mend="Evaluate on rows that fit the model's context and its chat template.",
        )


def _score_answers(
    data: EvaluationRows, plan: Plan, model: Measured, numbers: Sequence[int], scores: _Scores
) -> None:
    answers = [model.answers[number].text for number in numbers]
    rows = [data.rows[number] for number in numbers]
    references = [row.reference for row in rows]
    for name in plan.metrics:
        for of_answers in METRICS[name](answers, references):
            scores.add(of_answers, numbers)
    for metric in plan.own:
        value = metric(answers, references, [row.fields for row in rows])
        if isinstance(value, Score):
            scores.add(value, numbers)
        else:
            scores.singles[metric.name] = Estimate(value, None, None, len(numbers))


def _names(scores: _Scores) -> list[str]:
    return [*scores.scores, *scores.singles]


def _result(name: str, found: Mapping[Role, _Scores]) -> MetricResult:
    tuned, base = found["tuned"], found.get("base")
    if name in tuned.singles:
        one = tuned.singles[name]
        other = None if base is None else base.singles.get(name)
        return MetricResult(one, base=other, difference=_plain_difference(one, other))
    score = tuned.scores[name]
    other = None if base is None else base.scores.get(name)
    if other is None:
        return MetricResult(estimate(score), score.how)
    return MetricResult(estimate(score), score.how, estimate(other), compare(other, score))


def _plain_difference(tuned: Estimate, base: Estimate | None) -> Difference | None:
    """Return the difference of two numbers of which nothing more is known."""
    if base is None:
        return None
    return Difference(Estimate(tuned.value - base.value, None, None, tuned.num_rows))


def _task_results(tuned: Measured, base: Measured | None) -> dict[str, MetricResult]:
    results: dict[str, MetricResult] = {}
    for name, found in tuned.tasks.items():
        other = None if base is None else base.tasks.get(name)
        difference = _plain_difference(found, other)
        results[name] = MetricResult(found, "lm-eval", other, difference)
    return results


def _describe(data: EvaluationRows) -> dict[str, Any]:
    return {"path": data.path, "sha256": data.sha256(), "rows": len(data.rows)}


def _changed(
    rows: Sequence[EvaluationRow],
    measured: Mapping[Role, Measured],
    found: Mapping[Role, _Scores],
) -> list[Changed]:
    """Return the rows that changed most, by the first metric of answers that has changed at all.

    Where none has, by the loss.
    """
    base, tuned = found.get("base"), found["tuned"]
    if base is None:
        return []
    names = [name for name in tuned.scores if name in base.scores]
    names.sort(key=lambda name: tuned.scores[name].lower_is_better)
    gains = {name: _gain(base.scores[name], tuned.scores[name]) for name in names}
    name = next((name for name in names if gains[name].any()), None)
    if name is None:
        return []
    before, after, gain_N = base.scores[name], tuned.scores[name], gains[name]
    order = np.argsort(-gain_N, kind="stable")
    better = [place for place in order[:NUM_CHANGED] if gain_N[place] > 0]
    worse = [place for place in order[::-1][:NUM_CHANGED] if gain_N[place] < 0]
    numbers = list(tuned.places[name])
    changed: list[Changed] = []
    for place in (*better, *worse):
        number = numbers[place]
        row = rows[number]
        texts = {
            role: model.answers[number].text if number in model.answers else None
            for role, model in measured.items()
        }
        changed.append(
            Changed(
                metric=name,
                origin=str(row.origin),
                prompt="" if row.is_text else row.prompt[-1].content,
                reference=row.reference,
                base=float(before.row_values[place]),
                tuned=float(after.row_values[place]),
                base_answer=texts["base"],
                tuned_answer=texts["tuned"],
            )
        )
    return changed


def _gain(base: Score, tuned: Score) -> FloatArray:
    """Return by how much each row has become better."""
    if tuned.lower_is_better:
        # Of a perplexity the logarithm: else the rows that no model can foresee would lead.
        return np.log(base.row_values) - np.log(tuned.row_values)
    return tuned.row_values - base.row_values


def _left_out(rows: Sequence[EvaluationRow], measured: Iterable[Measured]) -> list[tuple[str, str]]:
    reasons: dict[int, str] = {}
    for model in measured:
        for left in model.left_out:
            reasons = left | reasons
    return [(str(rows[number].origin), reasons[number]) for number in sorted(reasons)]


def _notes(
    request: EvaluationRequest,
    data: EvaluationRows | None,
    plan: Plan,
    measured: Mapping[Role, Measured],
) -> list[str]:
    notes: list[str] = []
    for role, model in measured.items():
        cut = Counter(answer.finish_reason for answer in model.answers.values())["length"]
        if cut:
            notes.append(
                f"{cut} of {len(model.answers)} answers{request.of(role)} were cut at the longest "
                f"length (max_new_tokens: {plan.settings.max_new_tokens})."
            )
    references = [] if data is None else [row.reference for row in data.rows]
    if "math_answer" not in plan.metrics and looks_like_math(references):
        notes.append(
            "The references end with ####: --metrics math_answer compares their final numbers."
        )
    return notes


def _predictions(
    rows: Sequence[EvaluationRow],
    measured: Mapping[Role, Measured],
    found: Mapping[Role, _Scores],
) -> list[dict[str, Any]]:
    """Return a row for each answer of the tuned model, that of the base beside it."""
    tuned, base = measured["tuned"], measured.get("base")
    predictions: list[dict[str, Any]] = []
    for number in sorted(tuned.answers):
        row, answer = rows[number], tuned.answers[number]
        asked: dict[str, Any] = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in row.prompt]
        }
        if len(row.prompt) == 1:
            asked = {"prompt": row.prompt[0].content}
        prediction = {
            "origin": str(row.origin),
            **asked,
            "reference": row.reference,
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "num_tokens": answer.num_tokens,
            "metrics": found["tuned"].of_row(number),
        }
        if base is not None and number in base.answers:
            prediction["base_answer"] = base.answers[number].text
            prediction["base_metrics"] = found["base"].of_row(number)
        predictions.append(prediction)
    return predictions
