"""A step is taken where its numbers are finite, and changes nothing where they are not."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from luthier.engine.precision import Precision
from luthier.engine.update import (
    ReadThenStep,
    StepWhereFinite,
    choose_update,
    read_together,
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
    for _ in range(2):
        plain.step()
        update.take(taken, PLAIN, torch.tensor(3.0), torch.tensor(1.0))
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
    StepWhereFinite().take(optimizer, PLAIN, *map(torch.tensor, numbers))
    if steps_before:
        assert_same(everything(optimizer), before)
    parameter.grad = good
    optimizer.step()
    plain.step()
    assert_same(everything(optimizer), everything(plain))


@pytest.mark.parametrize("numbers", [(math.nan, 1.0), (1.0, math.inf)])
def test_the_host_leaves_a_step_out(numbers: tuple[float, float]) -> None:
    optimizer = optimizer_of(1.0)
    before = everything(optimizer)
    ReadThenStep().take(optimizer, PLAIN, *map(torch.tensor, numbers))
    assert_same(everything(optimizer), before)


class Scaler:
    """Counts what a loss scaler is asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def step(self, optimizer: Any) -> None:
        self.calls.append("step")

    def update(self) -> None:
        self.calls.append("update")


@pytest.mark.parametrize(
    ("numbers", "calls"),
    [((1.0, math.inf), ["step", "update"]), ((math.inf, math.inf), ["update"])],
)
def test_a_scaler_judges_the_gradient_and_the_loss_is_judged_here(
    numbers: tuple[float, float], calls: list[str]
) -> None:
    scaler: Any = Scaler()
    precision = Precision(torch.float16, "cuda", scaler)
    ReadThenStep().take(optimizer_of(1.0), precision, *map(torch.tensor, numbers))
    assert scaler.calls == calls


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
    bins = torch.tensor([[1, 2], [3, 4]])
    scalars = torch.tensor(0.25, requires_grad=True), torch.tensor(0.5, dtype=torch.bfloat16)
    assert read_together([scalars[0], bins, scalars[1]]) == [0.25, 1.0, 2.0, 3.0, 4.0, 0.5]
