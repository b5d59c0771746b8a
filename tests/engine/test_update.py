"""A step is taken where its numbers are finite, and changes nothing where they are not."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from luthier.core.errors import RunError
from luthier.engine.precision import Precision
from luthier.engine.update import (
    ReadThenStep,
    StepWhereFinite,
    choose_update,
    read_together,
    refuse_divergence,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = Precision(torch.float32, "cpu")


def optimizer_of(*values: float, **options: Any) -> torch.optim.AdamW:
    parameter = torch.nn.Parameter(torch.tensor(values))
    parameter.grad = torch.ones_like(parameter)
    return torch.optim.AdamW([parameter], lr=0.1, **options)


def everything(optimizer: torch.optim.Optimizer) -> Any:
    weights = [p.detach().clone() for group in optimizer.param_groups for p in group["params"]]
    return weights, copy.deepcopy(optimizer.state_dict()["state"])


def assert_same(left: Any, right: Any) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize("update", [ReadThenStep(), StepWhereFinite()])
def test_a_finite_step_is_the_optimisers_own(update: Any) -> None:
    plain, taken = optimizer_of(1.0, 2.0, fused=True), optimizer_of(1.0, 2.0, fused=True)
    for step in (1, 2):
        plain.step()
        update.take(step, taken, PLAIN, torch.tensor(3.0), torch.tensor(1.0))
    assert_same(everything(taken), everything(plain))
    assert not hasattr(taken, "found_inf")


@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan)])
@pytest.mark.parametrize("steps_before", [0, 2])
def test_the_device_leaves_a_step_out(numbers: tuple[float, float], steps_before: int) -> None:
    optimizer, plain = optimizer_of(1.0, fused=True), optimizer_of(1.0, fused=True)
    for _ in range(steps_before):
        optimizer.step()
        plain.step()
    before = everything(optimizer)
    (parameter,) = optimizer.param_groups[0]["params"]
    good = parameter.grad
    parameter.grad = torch.full_like(parameter, math.nan)
    StepWhereFinite().take(3, optimizer, PLAIN, *map(torch.tensor, numbers))
    if steps_before:
        assert_same(everything(optimizer), before)
    parameter.grad = good
    optimizer.step()
    plain.step()
    assert_same(everything(optimizer), everything(plain))


@pytest.mark.parametrize(
    ("numbers", "what"),
    [((math.nan, 1.0), "the loss of step 3 is nan"), ((1.0, math.inf), "the gradient .* is inf")],
)
def test_reading_first_raises_at_once(numbers: tuple[float, float], what: str) -> None:
    optimizer = optimizer_of(1.0)
    before = everything(optimizer)
    with pytest.raises(RunError, match=f"{what}; the step was not taken"):
        ReadThenStep().take(3, optimizer, PLAIN, *map(torch.tensor, numbers))
    assert_same(everything(optimizer), before)


def test_only_a_gradient_may_overflow() -> None:
    refuse_divergence(1, 1.0, math.inf, may_overflow=True)
    with pytest.raises(RunError, match="the loss of step 1 is inf"):
        refuse_divergence(1, math.inf, 1.0, may_overflow=True)


def test_the_choice() -> None:
    scaler: Any = object()
    fused, plain = optimizer_of(1.0, fused=True), optimizer_of(1.0, fused=False)
    sgd = torch.optim.SGD(fused.param_groups[0]["params"], lr=0.1)
    bf16 = Precision(torch.bfloat16, "cuda")
    assert choose_update(fused, bf16, CUDA) == StepWhereFinite()
    assert choose_update(fused, PLAIN, CPU) == ReadThenStep()
    assert choose_update(plain, bf16, CUDA) == ReadThenStep()
    assert choose_update(sgd, bf16, CUDA) == ReadThenStep()
    assert choose_update(fused, Precision(torch.float16, "cuda", scaler), CUDA) == ReadThenStep()


def test_numbers_are_read_together() -> None:
    pairs = [(torch.tensor(float(n)), torch.tensor(n / 2, dtype=torch.bfloat16)) for n in (1, 2)]
    assert read_together(pairs) == [[1.0, 0.5], [2.0, 1.0]]
