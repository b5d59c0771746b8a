"""Evaluations and samples: when they come, and what a stop in the middle of one leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from luthier.contracts.training import Progress, Sample, StopAskedError
from luthier.engine.look import evaluate, remember_best
from luthier.engine.loop import Training, train

Make = Callable[..., Training]


def samples(*answers: str) -> tuple[Sample, ...]:
    return tuple(Sample("?", answer, "stop") for answer in answers)


def test_prompts_are_answered_at_the_start_when_due_and_at_the_end(
    make_training: Make, recorder: Any
) -> None:
    numbers = iter(range(10))
    training = make_training(
        max_steps=5,
        observers=[recorder],
        evaluator=lambda model: {"eval_loss": 1.0},
        eval_every=2,
        sample_every=2,
        sampler=lambda model: samples(str(next(numbers))),
    )
    training.progress.samples_are_due = True
    train(training)
    said = [(r.step, r.samples[0].answer) for r in recorder.of("samples")]
    assert said == [(0, "0"), (2, "1"), (4, "2"), (5, "3")]
    kinds = [kind for kind, _ in recorder.events if kind in ("evaluation", "samples")]
    assert kinds == ["samples", *["evaluation", "samples"] * 3]
    assert training.progress.finished


def test_a_stop_gives_up_samples_and_the_next_start_makes_them(
    make_training: Make, recorder: Any, sink: Any
) -> None:
    evaluated: list[int] = []

    def given_up(model: Any) -> tuple[Sample, ...]:
        raise StopAskedError

    def evaluator(model: Any) -> dict[str, float]:
        evaluated.append(1)
        return {"eval_loss": 1.5}

    same = {"max_steps": 2, "eval_every": 2, "sample_every": 2, "evaluator": evaluator}
    stopped = make_training(**same, sink=sink, save_every=2, sampler=given_up)
    progress = train(stopped)
    assert (progress.step, progress.samples_are_due, progress.finished) == (2, True, False)
    assert sink.saved == [(2, {"eval_loss": 1.5})]
    resumed = make_training(**same, observers=[recorder], sampler=lambda model: samples("yes"))
    resumed.progress.step, resumed.progress.samples_are_due = 2, True
    assert train(resumed).finished
    assert [record.step for record in recorder.of("samples")] == [2]
    assert len(evaluated) == 1, "the evaluation was done, and is not made again"


def test_samples_wait_for_an_evaluation_that_was_given_up(
    make_training: Make, recorder: Any
) -> None:
    def given_up(model: Any) -> dict[str, float]:
        raise StopAskedError

    every = {"max_steps": 2, "eval_every": 2, "sample_every": 2}
    sampler = {"sampler": lambda model: samples("yes"), "observers": [recorder]}
    stopped = make_training(**every, **sampler, evaluator=given_up)
    progress = train(stopped)
    assert progress.evaluation_is_due
    assert progress.samples_are_due
    assert not progress.finished
    assert recorder.of("samples") == []
    resumed = make_training(**every, **sampler, evaluator=lambda model: {"eval_loss": 1.5})
    resumed.progress.step = 2
    resumed.progress.evaluation_is_due = resumed.progress.samples_are_due = True
    assert train(resumed).finished
    kinds = [kind for kind, _ in recorder.events if kind in ("evaluation", "samples")]
    assert kinds == ["evaluation", "samples"]


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ([3.0, 2.0, 4.0], 2.0),
        ([math.nan, 5.0], 5.0),
        ([4.0, math.nan], 4.0),
        ([math.inf], None),
    ],
)
def test_the_best_loss_is_a_number(losses: list[float], best: float | None) -> None:
    progress = Progress()
    for loss in losses:
        remember_best(progress, {"eval_loss": loss})
    assert progress.best_eval_loss == best


def test_without_evaluator_and_sink_nothing_is_told(make_training: Make, recorder: Any) -> None:
    training = make_training(max_steps=2, eval_every=1, save_every=1, observers=(recorder,))
    train(training)
    assert evaluate(training) == {}
    assert {kind for kind, _ in recorder.events} == {"start", "step", "log", "end"}
