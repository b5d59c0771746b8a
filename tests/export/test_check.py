"""What a check calls a problem, with artifacts that are wrong in one way each."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from luthier.export.check import (
    BOUNDS,
    Bound,
    CheckResult,
    bound_of,
    check_runtime,
)
from luthier.export.transformers_runtime import TransformersRuntime


class Wrong(TransformersRuntime):
    """An artifact that is right but for what a test sets."""

    def __init__(self, folder, **changes):
        right = TransformersRuntime.of_folder(folder)
        super().__init__(right.model, right.tokenizer)
        for name, change in changes.items():
            setattr(
                self,
                name,
                lambda *a, n=name, c=change: c(getattr(TransformersRuntime, n)(self, *a)),
            )


def check(source, probe, bound=BOUNDS["F32"], **changes):
    return check_runtime(Wrong(source.folder, **changes), probe, bound)


def test_the_model_itself_passes(source, probe):
    result = check(source, probe)
    assert result.problems == ()
    assert result.verdict == "passed"
    assert result.kl == pytest.approx(0, abs=1e-6)
    assert result.top1 == 1
    assert result.ppl_ratio == pytest.approx(1)
    assert (result.ids_equal, result.stops, result.cached_equal) == (True, True, True)
    assert [s.trained for s in result.samples] == [s.artifact for s in result.samples]
    assert result.samples[0].prompt == probe.chats[0].text


@pytest.mark.parametrize(
    ("change", "problem", "field"),
    [
        ({"text_ids": lambda ids: ids[1:]}, "the tokenizer differs: from token 0 on", "ids_equal"),
        ({"chat_ids": lambda ids: [*ids, 5]}, "the chat template differs: from", "ids_equal"),
        ({"chat_ids": lambda ids: []}, "the chat template differs: from token 0", "ids_equal"),
        ({"stop_token_ids": lambda ids: frozenset([min(ids)])}, "it does not stop at", "stops"),
        (
            {"cached_log_probs": lambda p: np.roll(p, 1, 0)},
            "decoding with its cache",
            "cached_equal",
        ),
    ],
)
def test_one_fault_is_named_and_the_rest_is_right(source, probe, change, problem, field):
    result = check(source, probe, **change)
    (found,) = result.problems
    assert problem in found
    assert getattr(result, field) is False
    others = {"ids_equal", "stops", "cached_equal"} - {field}
    assert all(getattr(result, name) for name in others)
    assert result.verdict == "failed"


def test_probabilities_out_of_bounds_are_named_with_the_bound(source, probe):
    result = check(
        source,
        probe,
        log_probs=lambda p: np.roll(p, 1, 1),
        cached_log_probs=lambda p: np.roll(p, 1, 1),
    )
    assert "its KL divergence is" in result.problems[0]
    assert "at most 0.001 is allowed" in result.problems[0]
    assert "its likeliest token is the trained model's at" in result.problems[1]
    assert result.ppl_ratio is not None
    assert result.ppl_ratio > 1


def test_nan_is_out_of_bounds(source, probe):
    result = check(source, probe, log_probs=lambda p: p * np.nan)
    assert any("KL divergence is nan" in problem for problem in result.problems)


def test_a_smaller_vocabulary_is_named(source, probe):
    def fewer(log_probs):
        return log_probs[:, :-3]

    result = check(source, probe, log_probs=fewer, cached_log_probs=fewer)
    assert any("the vocabulary has" in problem for problem in result.problems)
    assert result.kl is None


def test_an_answer_that_runs_on_past_its_end_is_named(source, probe):
    halves = tuple(answer[: len(answer) // 2] for answer in probe.answers)
    ended = replace(probe, answers=halves, stopped=(True,) * len(halves))
    result = check(source, ended, answer=lambda told: (told[0], False))
    assert "an answer runs on past its end" in result.problems[0]
    assert result.stops is False


def test_what_a_runtime_can_not_tell_stays_open(source, probe):
    result = check(source, probe, chat_ids=lambda _: None, cached_log_probs=lambda _: None)
    assert result.verdict == "passed"
    assert result.cached_equal is None
    nothing = replace(probe, chats=(), rows=(), log_probs=(), prompts=(), answers=(), stopped=())
    empty = check_runtime(Wrong(source.folder), nothing, Bound(0, 1))
    assert (empty.kl, empty.ids_equal, empty.cached_equal) == (None, None, None)


def test_a_dated_template_is_compared_on_its_own_day_alone(source, probe):
    def later(ids):
        return [*ids, 5]

    today = replace(probe, day=date.today().isoformat())
    assert check(source, today, chat_ids=later).ids_equal is False
    past = replace(probe, day="2001-01-01")
    assert check(source, past, chat_ids=later).ids_equal is True
    assert check(source, past, text_ids=later).ids_equal is False


def test_bounds_widen_with_fewer_bits():
    order = [bound_of(kind) for kind in ("F16", "BF16", "Q8_0", "Q4_K_M", "Q4_0")]
    assert [b.kl for b in order] == sorted(b.kl for b in order)
    assert [-b.top1 for b in order] == sorted(-b.top1 for b in order)
    assert bound_of(None) == bound_of("F32") == bound_of("anything")


def test_what_was_not_run_is_neither_passed_nor_failed():
    assert CheckResult(not_checked="no GPU").verdict == "not checked"
    assert CheckResult(not_checked="no GPU", problems=("x",)).verdict == "failed"
