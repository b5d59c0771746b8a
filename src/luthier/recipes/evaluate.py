"""Evaluate a model: perplexity, metrics of its answers, benchmark tasks; against its base or alone.

The wiring of `luthier eval`. What is quick to find wrong is found before a model is loaded; answers
are kept as they come (`answer_cache.py`). Two models are compared on the rows that both can take;
the others are counted and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luthier.core.disk import check_folder
from luthier.core.errors import DataError, SettingsError
from luthier.evaluation.generation import Answer, generate_answers
from luthier.evaluation.metrics.own import OwnMetric, own_metric
from luthier.evaluation.metrics.registry import (
    METRICS,
    PERPLEXITY,
    SCORE_NAMES,
    check_metrics,
    suitable_metrics,
    try_metrics,
)
from luthier.evaluation.row_losses import RowLoss, RowLosses
from luthier.evaluation.settings import GenerationSettings, generation_settings
from luthier.objectives.find_head import find_head
from luthier.recipes.answer_cache import AnswerCache
from luthier.recipes.answering import ModelPlace, find_model
from luthier.recipes.benchmark_tasks import check_tasks, run_tasks
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.evaluated_model import EvaluatedModel, Role, choose_base, load_evaluated
from luthier.recipes.evaluation_plan import EvaluationRequest, Measured, Plan
from luthier.recipes.evaluation_result import FOLDER, Evaluation, write_evaluation
from luthier.recipes.evaluation_rows import EvaluationRows, rows_of_file, rows_of_run
from luthier.recipes.evaluation_scores import score
from luthier.recipes.measured_rows import rows_for_answers, rows_for_loss
from luthier.recipes.run_folder import RUN_YAML
from luthier.recipes.screen import Screen


def evaluate(request: EvaluationRequest, screen: Screen) -> Evaluation:
    """Measure a model, and write down what was found.

    Args:
        request: What to measure.
        screen: Told what takes time.

    Raises:
        LuthierError: Anything that the user can mend.
    """
    check_metrics(request.metrics or ())
    settings = generation_settings(
        max_new_tokens=request.max_new_tokens, batch_size=request.batch_size
    )
    own: list[OwnMetric] = []
    for named in request.own_metrics:
        own.append(own_metric(named, (*SCORE_NAMES, *(metric.name for metric in own))))
    check_tasks(request.tasks)
    place = find_model(request.model)
    base = choose_base(place, request.base)
    folder = _folder(request, place)
    data = _read_rows(request, place, screen)
    plan = _plan(request, data, own, settings)
    measured: dict[Role, Measured] = {}
    screen.say(f"Loading {request.model}")
    for model in load_evaluated(place, request.model, base):
        screen.say(f"{model.description}{request.of(model.role)}")
        measured[model.role] = _measure(model, data, plan, request, screen)
        del model  # its memory is the next one's
    evaluation = score(request, _name(request, data, place), data, plan, measured)
    if folder is not None:
        write_evaluation(evaluation, folder)
    return evaluation


def _name(request: EvaluationRequest, data: EvaluationRows | None, place: ModelPlace) -> str:
    """Return what the results are called: after the data and, of a checkpoint, its step."""
    if request.name is not None:
        return request.name
    name = "tasks" if data is None else data.name
    return name if place.checkpoint is None else f"{name}-{place.checkpoint}"


def _folder(request: EvaluationRequest, place: ModelPlace) -> Path | None:
    """Return where the results go; None where they are only shown."""
    folder = None if place.run is None else place.run / FOLDER
    if request.out is not None:
        folder = Path(request.out).expanduser()
    if folder is None:
        if request.predict:
            raise SettingsError(
                "there is no place for the answers: the model is of no run",
                where="--predict",
                mend="Name a folder: --out FOLDER",
            )
        return None
    check_folder(folder, "the evaluation", "--out to a folder")
    return folder


def _read_rows(
    request: EvaluationRequest, place: ModelPlace, screen: Screen
) -> EvaluationRows | None:
    if request.only_tasks:
        return None
    if request.data is not None:
        return rows_of_file(request.data, request.num_rows)
    if place.run is None:
        raise SettingsError(
            "there are no rows to evaluate on: the model is of no run",
            where="--data",
            mend="Name rows with answers, or texts: --data FILE",
        )
    return rows_of_run(resolve_file(place.run / RUN_YAML).config, request.num_rows, screen)


def _plan(
    request: EvaluationRequest,
    data: EvaluationRows | None,
    own: Sequence[OwnMetric],
    settings: GenerationSettings,
) -> Plan:
    if data is None:
        return Plan(False, (), (), False, settings)
    names = [PERPLEXITY] if request.metrics is None else list(dict.fromkeys(request.metrics))
    of_answers = [name for name in names if name != PERPLEXITY]
    if request.generate and not of_answers:
        of_answers = suitable_metrics([row.reference for row in data.rows])
    try_metrics(of_answers)
    plan = Plan(PERPLEXITY in names, of_answers, own, request.predict, settings)
    if not (plan.perplexity or plan.needs_answers or request.tasks):
        raise SettingsError(
            "there is nothing to measure",
            where="--metrics",
            mend=f"Name metrics, between commas: {', '.join((PERPLEXITY, *METRICS))}",
        )
    text = next((row for row in data.rows if row.is_text), None)
    if plan.needs_answers and text is not None:
        raise DataError(
            "this row is a text without question and answer",
            where=str(text.origin),
            mend="Of texts there is only the perplexity: --metrics perplexity",
        )
    return plan


def _measure(
    model: EvaluatedModel,
    data: EvaluationRows | None,
    plan: Plan,
    request: EvaluationRequest,
    screen: Screen,
) -> Measured:
    measured = Measured(model.name)
    if data is not None and plan.perplexity:
        _take_losses(model, data, plan, screen, measured, request.of(model.role))
    if data is not None and plan.needs_answers:
        _take_answers(model, data, plan, screen, measured, request.of(model.role))
    if request.tasks:
        screen.say(f"Benchmark tasks: {', '.join(request.tasks)}")
        measured.tasks = run_tasks(
            model.model, model.tokenizer, request.tasks, request.num_rows, request.batch_size
        )
    return measured


def _take_losses(
    model: EvaluatedModel,
    data: EvaluationRows,
    plan: Plan,
    screen: Screen,
    measured: Measured,
    who: str,
) -> None:
    seen = rows_for_loss(model, data.rows)
    measured.left_out.append(seen.left_out)
    pad: Any = model.tokenizer.pad_token_id
    compute = RowLosses(
        head=find_head(model.model)[0],
        device=model.device,
        is_packed=model.is_packed,
        pad_id=pad or 0,  # it is masked: any will do
        batch_size=plan.settings.batch_size,
        progress=lambda done, total: screen.working(f"loss{who}", done, total),
    )
    losses = compute(model.model, [row.columns() for row in seen.loss_rows])
    for row, nats in zip(seen.loss_rows, losses, strict=True):
        loss = RowLoss(nats, row.num_tokens, row.num_bytes)
        known = measured.losses.get(row.number)
        measured.losses[row.number] = loss if known is None else known + loss


def _take_answers(
    model: EvaluatedModel,
    data: EvaluationRows,
    plan: Plan,
    screen: Screen,
    measured: Measured,
    who: str,
) -> None:
    seen = rows_for_answers(model, data.rows)
    measured.left_out.append(seen.left_out)
    cache = AnswerCache.of(model.identity, plan.settings.max_new_tokens)
    missing: dict[int, Sequence[int]] = {}
    for number, prompt in seen.prompts.items():
        known = cache.get(prompt)
        if known is None:
            missing[number] = prompt
        else:
            measured.answers[number] = known
    if measured.answers:
        screen.say(f"{len(measured.answers):,} answers are known from before{who}")
    numbers, num_done = list(missing), 0

    def keep(index: int, answer: Answer) -> None:
        nonlocal num_done
        number = numbers[index]
        cache.add(missing[number], answer)
        measured.answers[number] = answer
        num_done += 1
        screen.working(f"answering{who}", num_done, len(numbers))

    generate_answers(
        model.model,
        model.tokenizer,
        list(missing.values()),
        plan.settings,
        model.stop_token_ids,
        keep,
    )
