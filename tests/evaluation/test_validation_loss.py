"""Sums over all validation tokens, against the model's own loss over them."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch

from luthier.batches.collate import causal_lm_collate
from luthier.batches.cutting import split_batch
from luthier.contracts.notice import Notice
from luthier.contracts.training import LossSum, MetricSum, StopAskedError
from luthier.engine.memory import MicroBatches
from luthier.engine.precision import Precision
from luthier.evaluation.validation_loss import ValidationLoss
from luthier.objectives.sft import SupervisedFineTuning

torch.set_num_threads(1)

ROWS = [
    {"input_ids": [3, 4, 5, 6, 7, 8], "labels": [-100, -100, 5, 6, 7, 8]},
    {"input_ids": [9, 10, 11], "labels": [-100, 10, 11]},
    {"input_ids": [12, 13, 14, 15], "labels": [-100, 13, 14, 15]},
]


@pytest.fixture
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_dropout=0.5,
        initializer_range=0.3,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def measure(cuts: list[int], **fields: Any) -> ValidationLoss:
    edges = [0, *cuts, len(ROWS)]
    batches = [causal_lm_collate(ROWS[a:b], 0) for a, b in pairwise(edges)]
    evaluator = ValidationLoss(
        batches=lambda: batches,
        objective=SupervisedFineTuning(),
        precision=Precision(torch.float32, "cpu"),
        device=torch.device("cpu"),
    )
    return replace(evaluator, **fields)


def test_is_the_loss_over_all_tokens(model: Any) -> None:
    metrics = measure([])(model)
    model.eval()
    with torch.no_grad():
        output = model(**causal_lm_collate(ROWS, 0))
    assert metrics["eval_loss"] == pytest.approx(output.loss.item(), abs=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(output.loss.item()), rel=1e-5)
    assert metrics["eval_supervised_tokens"] == 9
    labels = causal_lm_collate(ROWS, 0)["labels"][:, 1:]
    right = (output.logits[:, :-1].argmax(-1) == labels).sum().item()
    assert metrics["eval_token_accuracy"] == right / 9
    assert metrics["eval_seconds"] > 0


def test_batch_size_changes_nothing(model: Any) -> None:
    """A mean of the batches' means would: they have 4, 2 and 3 tokens."""
    whole, cut = measure([])(model), measure([1, 2])(model)
    for name in ("eval_loss", "eval_token_accuracy", "eval_supervised_tokens"):
        assert whole[name] == pytest.approx(cut[name], abs=1e-6), name


@pytest.mark.parametrize("training", [False, True])
def test_dropout_is_off_and_the_mode_comes_back(model: Any, training: bool) -> None:
    model.train(training)
    evaluator = measure([])
    losses = [evaluator(model)["eval_loss"] for _ in range(3)]
    assert model.training is training
    assert len(set(losses)) == 1


def test_the_mode_comes_back_after_an_error(model: Any) -> None:
    def broken(model: Any, batch: Any) -> LossSum:
        raise ZeroDivisionError

    objective: Any = broken
    model.train()
    with pytest.raises(ZeroDivisionError):
        measure([], objective=objective)(model)
    assert model.training


def test_training_goes_on_after_an_evaluation(model: Any) -> None:
    """Nothing that the evaluation made is left where a backward pass would trip over it."""
    batch = causal_lm_collate(ROWS, 0)
    model.train()
    measure([])(model)
    model(**batch).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_an_objectives_metrics_are_sums_over_all_batches(model: Any) -> None:
    """Three batches of one, two and three pairs: a mean of their means would be another number."""
    pairs = iter([1.0, 2.0, 3.0])

    def objective(model: Any, batch: Any) -> LossSum:
        number = torch.tensor(next(pairs))
        return LossSum(
            total=number,
            weight=number,
            num_tokens=number,
            metrics={
                "margin": MetricSum(number**2, number),
                "calibration": MetricSum(torch.stack([number, -number / 3]), number),
            },
        )

    of_pairs: Any = objective
    metrics = measure([1, 2], objective=of_pairs)(model)
    assert metrics["eval_margin"] == pytest.approx(14 / 6)
    assert metrics["eval_calibration"] == pytest.approx(8 / 6)
    assert metrics["eval_loss"] == 1.0
    assert {"eval_perplexity", "eval_token_accuracy"}.isdisjoint(metrics), "no loss of tokens"


def fixed(total: float, weight: float) -> Any:
    """An objective that always gives the same sums."""
    tokens = torch.tensor(int(weight))
    sums = LossSum(torch.tensor(total), torch.tensor(weight), tokens, torch.tensor(0))
    return lambda model, batch: sums


@pytest.mark.parametrize(
    ("total", "weight", "loss", "perplexity"),
    [
        (2.0, 1.0, 2.0, math.exp(2.0)),
        (2000.0, 2.0, 1000.0, math.inf),
        (math.inf, 2.0, math.inf, math.inf),
        (math.nan, 2.0, math.nan, math.nan),
        (0.0, 0.0, math.nan, math.nan),
    ],
)
def test_numbers_that_do_not_fit(
    model: Any, total: float, weight: float, loss: float, perplexity: float
) -> None:
    metrics = measure([], objective=fixed(total, weight))(model)
    assert metrics["eval_loss"] == pytest.approx(loss, nan_ok=True)
    assert metrics["eval_perplexity"] == pytest.approx(perplexity, nan_ok=True)


def test_computes_in_the_precision_of_training(model: Any) -> None:
    exact = measure([])(model)["eval_loss"]
    rough = measure([], precision=Precision(torch.bfloat16, "cpu"))(model)["eval_loss"]
    assert rough == pytest.approx(exact, abs=0.05)
    assert rough != exact


def test_memory_that_runs_out_cuts_the_batch(model: Any) -> None:
    told: list[Notice] = []
    plain = SupervisedFineTuning()

    class Scarce:
        def weight(self, batch: Any) -> torch.Tensor:
            return plain.weight(batch)

        def __call__(self, model: Any, batch: Any) -> LossSum:
            if batch["input_ids"].numel() > 8:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return plain(model, batch)

    micro_batches = MicroBatches(split_batch, None, told.append, "per_device_eval_batch_size")
    found = measure([], objective=Scarce(), micro_batches=micro_batches)(model)
    expected = measure([])(model)
    for name in ("eval_loss", "eval_token_accuracy", "eval_supervised_tokens"):
        assert found[name] == pytest.approx(expected[name], abs=1e-6), name
    (notice,) = told
    assert notice.setting == "per_device_eval_batch_size"


def test_a_stop_gives_it_up_and_the_mode_comes_back(model: Any) -> None:
    answers = iter([False, True])
    model.train()
    with pytest.raises(StopAskedError):
        measure([1], is_stopped=lambda: next(answers))(model)
    assert model.training
