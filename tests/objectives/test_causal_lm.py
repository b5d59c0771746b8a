"""The loss against a naive float64 reference, torch's, and transformers' own."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.objectives.causal_lm import (
    causal_lm_loss,
    causal_lm_loss_from_hidden,
    log_probs_after,
    supervised_weight,
    token_log_probs,
)
from luthier.objectives.find_head import find_head
from luthier.objectives.head import Head

Make = Callable[..., dict[str, torch.Tensor]]


def naive_sum(logits: Any, labels: Any, weights: Any = None, smoothing: float = 0.0) -> float:
    """Sum the losses with loops and Python's float64: position t is scored on token t+1."""
    total = 0.0
    rows, length, size = logits.shape
    for row in range(rows):
        for t in range(length - 1):
            target = int(labels[row, t + 1])
            if target == -100:
                continue
            scores = [float(x) for x in logits[row, t].double()]
            top = max(scores)
            log_norm = top + math.log(sum(math.exp(x - top) for x in scores))
            loss = (1 - smoothing) * (log_norm - scores[target])
            loss += smoothing * sum(log_norm - x for x in scores) / size
            total += loss * (1.0 if weights is None else float(weights[row, t + 1]))
    return total


def random_case(seed: int = 0, rows: int = 3, length: int = 8, vocabulary: int = 17) -> Any:
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, vocabulary, generator=random) * 3
    labels = torch.randint(0, vocabulary, (rows, length), generator=random)
    labels[torch.rand(rows, length, generator=random) < 0.4] = -100
    labels[:, 1] = 3
    weights = torch.rand(rows, length, generator=random) * 2
    return logits, labels, weights


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_naive_reference(smoothing: float, weighted: bool) -> None:
    logits, labels, weights = random_case()
    given_weights = weights if weighted else None
    loss = causal_lm_loss(logits, labels, given_weights, smoothing)
    expected = naive_sum(logits, labels, given_weights, smoothing)
    assert float(loss.total) == pytest.approx(expected, rel=1e-6)
    supervised = labels[:, 1:] != -100
    assert int(loss.num_tokens) == int(supervised.sum())
    expected_weight = weights[:, 1:][supervised].sum() if weighted else supervised.sum()
    assert float(loss.weight) == pytest.approx(float(expected_weight), rel=1e-6)
    assert float(supervised_weight(labels, given_weights)) == float(loss.weight)


@pytest.mark.parametrize("by_hidden", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_dft_is_the_papers_loss_in_float64(
    tiny_model: Any, by_hidden: bool, weighted: bool
) -> None:
    """Sum of sg(p) x (-log p): its gradient is that of -p, where log p's would be 1/p of it."""
    _, labels, weights = random_case(vocabulary=61)
    given_weights = weights if weighted else None
    hidden = torch.randn(3, 8, 32, requires_grad=True)
    if by_hidden:
        head = linear_head(tiny_model)
        loss = causal_lm_loss_from_hidden(hidden, labels, head, given_weights, dft=True)
    else:
        loss = causal_lm_loss(tiny_model.lm_head(hidden), labels, given_weights, dft=True)
    matrix = tiny_model.lm_head.weight
    ours = torch.autograd.grad(loss.total, [hidden, matrix])
    exact_hidden, exact_matrix = (t.detach().double().requires_grad_() for t in (hidden, matrix))
    probabilities = (exact_hidden @ exact_matrix.T).softmax(-1)[:, :-1]
    is_scored = labels[:, 1:] != -100
    p = probabilities[is_scored].gather(1, labels[:, 1:][is_scored][:, None])[:, 0]
    w = weights[:, 1:][is_scored].double() if weighted else torch.ones_like(p)
    expected = float((w * -p * p.log()).sum().detach())
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    theirs = torch.autograd.grad((w * -p).sum(), [exact_hidden, exact_matrix])
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double(), their, rtol=1e-5, atol=1e-6)
    assert float(loss.weight) == pytest.approx(float(w.sum()), rel=1e-6)


def test_equals_the_loss_of_transformers_own_model(tiny_model: Any, random_batch: Make) -> None:
    batch = random_batch()
    with torch.no_grad():
        output = tiny_model(**batch)
        summed = tiny_model(**batch, num_items_in_batch=torch.tensor(1.0)).loss
    loss = causal_lm_loss(output.logits, batch["labels"])
    assert float(loss.total / loss.weight) == pytest.approx(float(output.loss), abs=1e-6)
    assert float(loss.total) == pytest.approx(float(summed), rel=1e-6)


def test_counts_right_predictions() -> None:
    labels = torch.tensor([[5, 1, -100, 2, 3]])
    logits = torch.zeros(1, 5, 6)
    logits[0, 0, 1] = logits[0, 1, 0] = logits[0, 2, 2] = logits[0, 3, 4] = 9.0
    loss = causal_lm_loss(logits, labels)
    assert (loss.num_correct, loss.num_tokens) == (2, 3)


def test_labels_shifted_twice_teach_the_token_after_the_next(
    tiny_model: Any, random_batch: Make
) -> None:
    """The lecture's slide shifts the labels, and the model shifts them again."""
    batch = random_batch((9, 9))
    ids = batch["input_ids"]
    slide = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], dim=1)
    inputs = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    logits = tiny_model(**inputs).logits
    right = causal_lm_loss(logits, ids)
    twice = tiny_model(**inputs, labels=slide).loss
    log_probs = logits.log_softmax(-1)
    after_next = -log_probs[:, :-2].gather(-1, ids[:, 2:, None]).mean()
    following = -log_probs[:, :-1].gather(-1, ids[:, 1:, None]).mean()
    assert float(right.total / right.weight) == pytest.approx(float(following), abs=1e-5)
    assert float(twice) == pytest.approx(float(after_next), abs=1e-5)
    assert abs(float(twice) - float(following)) > 0.01


def test_weights_of_zero_and_one_are_a_mask() -> None:
    logits, labels, _ = random_case()
    logits.requires_grad_()
    weights = (torch.rand(labels.shape, generator=torch.Generator().manual_seed(4)) < 0.5).float()
    weights[0, 1] = 1.0
    by_weight = causal_lm_loss(logits, labels, weights)
    by_mask = causal_lm_loss(logits, labels.masked_fill(weights == 0, -100))
    for name in ("total", "weight", "num_tokens", "num_correct"):
        assert torch.equal(getattr(by_weight, name), getattr(by_mask, name)), name
    assert 0 < int(by_mask.num_tokens) < int((labels[:, 1:] != -100).sum())
    (one,) = torch.autograd.grad(by_weight.total, logits)
    (other,) = torch.autograd.grad(by_mask.total, logits)
    assert torch.equal(one, other)


def test_weights_scale_rows_and_tokens() -> None:
    logits, labels, _ = random_case()
    plain = [causal_lm_loss(logits[i : i + 1], labels[i : i + 1]) for i in range(3)]
    row_weights = torch.tensor([1.0, 0.5, 3.0])
    weighted = causal_lm_loss(logits, labels, row_weights[:, None].expand(labels.shape))
    expected = sum(w * p.total for w, p in zip(row_weights, plain, strict=True))
    assert float(weighted.total) == pytest.approx(float(expected), rel=1e-6)
    one_token = torch.ones(labels.shape)
    one_token[1, 1] = 5.0  # labels[1, 1] is supervised: position 0 predicts it.
    extra = 4 * -logits[1, 0].log_softmax(-1)[labels[1, 1]]
    total = sum(p.total for p in plain)
    assert float(causal_lm_loss(logits, labels, one_token).total) == pytest.approx(
        float(total + extra), rel=1e-6
    )


def test_label_smoothing_is_torchs_and_transformers() -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    logits, labels, _ = random_case()
    loss = causal_lm_loss(logits, labels, label_smoothing=0.2)
    flat = logits[:, :-1].reshape(-1, logits.shape[-1])
    torchs = torch.nn.functional.cross_entropy(
        flat, labels[:, 1:].reshape(-1), label_smoothing=0.2, reduction="sum"
    )
    theirs = LabelSmoother(epsilon=0.2)({"logits": logits}, labels.clone(), shift_labels=True)
    assert float(loss.total) == pytest.approx(float(torchs), rel=1e-6)
    assert float(loss.total / loss.weight) == pytest.approx(float(theirs), rel=1e-6)
    assert float(loss.total) != pytest.approx(float(causal_lm_loss(logits, labels).total), rel=1e-3)


def test_low_precision_logits_are_scored_in_float32() -> None:
    logits, labels, _ = random_case()
    halved = logits.bfloat16()
    loss = causal_lm_loss(halved, labels)
    assert loss.total.dtype == torch.float32
    assert float(loss.total) == pytest.approx(naive_sum(halved, labels), rel=1e-6)


@pytest.mark.parametrize("weights", [None, torch.zeros(2, 4)])
def test_a_batch_without_supervised_tokens_is_zero(weights: torch.Tensor | None) -> None:
    logits = torch.randn(2, 4, 5, requires_grad=True)
    labels = torch.full((2, 4), -100) if weights is None else torch.ones(2, 4).long()
    loss = causal_lm_loss(logits, labels, weights)
    assert (float(loss.total), float(loss.weight), int(loss.num_tokens)) == (0.0, 0.0, 0)
    loss.total.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 7),
    cuts=st.sets(st.integers(1, 6)),
    weighted=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1]),
)
def test_any_split_of_a_batch_has_the_same_sums(
    seed: int, rows: int, cuts: set[int], weighted: bool, smoothing: float
) -> None:
    logits, labels, weights = random_case(seed, rows=rows)
    given_weights = weights if weighted else None
    whole = causal_lm_loss(logits, labels, given_weights, smoothing)
    edges = [0, *sorted(cut for cut in cuts if cut < rows), rows]
    parts = [
        causal_lm_loss(
            logits[a:b], labels[a:b], weights[a:b] if weighted else None, label_smoothing=smoothing
        )
        for a, b in pairwise(edges)
    ]
    assert float(sum(p.total for p in parts)) == pytest.approx(float(whole.total), rel=1e-5)
    assert float(sum(p.weight for p in parts)) == pytest.approx(float(whole.weight), rel=1e-5)
    assert sum(int(p.num_tokens) for p in parts) == int(whole.num_tokens)
    assert sum(int(p.num_correct) for p in parts if p.num_correct is not None) == whole.num_correct


def linear_head(model: Any) -> Head:
    head, _ = find_head(model)
    assert head is not None
    return head


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_hidden_states_give_the_sums_of_logits(
    tiny_model: Any, smoothing: float, weighted: bool
) -> None:
    _, labels, weights = random_case(vocabulary=61)
    weights[0, 1] = 0.0
    given_weights = weights if weighted else None
    hidden = torch.randn(3, 8, 32)
    ours = causal_lm_loss_from_hidden(
        hidden, labels, linear_head(tiny_model), given_weights, smoothing
    )
    plain = causal_lm_loss(tiny_model.lm_head(hidden), labels, given_weights, smoothing)
    for name in ("weight", "num_tokens", "num_correct"):
        assert torch.equal(getattr(ours, name), getattr(plain, name)), name
    assert float(ours.total) == pytest.approx(float(plain.total), rel=1e-6)


@pytest.mark.parametrize("weights", [None, torch.zeros(2, 4)])
def test_hidden_states_without_supervised_tokens_are_zero(
    tiny_model: Any, weights: torch.Tensor | None
) -> None:
    hidden = torch.randn(2, 4, 32, requires_grad=True)
    labels = torch.full((2, 4), -100) if weights is None else torch.ones(2, 4).long()
    loss = causal_lm_loss_from_hidden(hidden, labels, linear_head(tiny_model), weights)
    assert (float(loss.total), float(loss.weight), int(loss.num_tokens)) == (0.0, 0.0, 0)
    loss.total.backward()
    for gradient in (hidden.grad, tiny_model.lm_head.weight.grad):
        assert gradient is not None
        assert not gradient.any()


def test_only_supervised_rows_go_through_the_head(tiny_model: Any) -> None:
    """Hidden states of others may hold anything: they are never multiplied."""
    _, labels, _ = random_case(vocabulary=61)
    hidden = torch.randn(3, 8, 32)
    unused = torch.ones(3, 8, dtype=torch.bool)
    unused[:, :-1] = labels[:, 1:] == -100
    hidden[unused] = math.nan
    head = linear_head(tiny_model)
    assert math.isfinite(float(causal_lm_loss_from_hidden(hidden, labels, head).total))
    assert torch.isfinite(token_log_probs(hidden, labels, head)).all()


def test_log_probs_after_any_positions(tiny_model: Any) -> None:
    hidden = torch.randn(2, 5, 32, requires_grad=True)
    predictors, targets = torch.tensor([3, 3, 0, 9]), torch.tensor([7, 8, 9, 7])
    got = log_probs_after(hidden, predictors, targets, linear_head(tiny_model))
    log_probs = tiny_model.lm_head(hidden.reshape(10, 32)).log_softmax(-1)
    torch.testing.assert_close(got, log_probs[predictors, targets])
    (found,) = torch.autograd.grad(got.sum(), hidden, retain_graph=True)
    (expected,) = torch.autograd.grad(log_probs[predictors, targets].sum(), hidden)
    torch.testing.assert_close(found, expected)


def test_log_probs_stand_at_their_labels(tiny_model: Any) -> None:
    _, labels, _ = random_case(vocabulary=61)
    hidden = torch.randn(3, 8, 32, requires_grad=True)
    got = token_log_probs(hidden, labels, linear_head(tiny_model))
    log_probs = tiny_model.lm_head(hidden).log_softmax(-1)
    expected = torch.zeros(3, 8)
    for row in range(3):
        for t in range(1, 8):
            if labels[row, t] != -100:
                expected[row, t] = log_probs[row, t - 1, labels[row, t]].detach()
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    total = causal_lm_loss_from_hidden(hidden, labels, linear_head(tiny_model)).total
    assert float(got.sum()) == pytest.approx(-float(total), rel=1e-5)
    (by_token,) = torch.autograd.grad(got.sum(), hidden)
    (by_sum,) = torch.autograd.grad(total, hidden)
    torch.testing.assert_close(by_token, -by_sum)
