"""Each loss against its paper's equation, written down once more, naively, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from luthier.objectives.preference_losses import (
    LENGTH_AVERAGED,
    PAIR_LOSSES,
    exo_pair,
    hinge,
    ipo,
    log1mexp,
    robust,
    sigmoid,
    simpo,
    smoothed,
    sppo_hard,
)
from luthier.objectives.settings import WITH_SMOOTHING, PreferenceLossName

Tensor = torch.Tensor


def s(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def log_odds(x: Tensor) -> Tensor:
    return torch.log(torch.exp(x) / (1 - torch.exp(x)))


def dpo(c: Tensor, r: Tensor, beta: float, e: float) -> Tensor:
    z = beta * c - beta * r
    return -(1 - e) * torch.log(s(z)) - e * torch.log(s(-z))


def rdpo(c: Tensor, r: Tensor, beta: float, e: float) -> Tensor:
    return ((1 - e) * dpo(c, r, beta, 0) - e * dpo(r, c, beta, 0)) / (1 - 2 * e)


def exo(c: Tensor, r: Tensor, beta: float, e: float) -> Tensor:
    policy = torch.softmax(torch.stack([beta * c, beta * r]), dim=0)
    label = torch.tensor([1 - e, e], dtype=c.dtype)[:, None]
    return (policy * (policy / label).log()).sum(0)


def nca(c: Tensor, r: Tensor, beta: float, e: float) -> Tensor:
    return -torch.log(s(beta * c) * (s(-beta * c) * s(-beta * r)) ** 0.5)


PAPERS: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "sigmoid": dpo,
    "hinge": lambda c, r, beta, e: torch.maximum(1 - beta * (c - r), torch.zeros_like(c)),
    "ipo": lambda c, r, beta, e: (c - r - 1 / (2 * beta)).square(),
    "robust": rdpo,
    "exo_pair": exo,
    "nca_pair": nca,
    "bco_pair": lambda c, r, beta, e: -torch.log(s(beta * c) * (1 - s(beta * r))),
    "sppo_hard": lambda c, r, beta, e: (
        (c - (1 - 1 / 2) / beta).square() + (r - (0 - 1 / 2) / beta).square()
    ),
    "apo_zero": lambda c, r, beta, e: 1 - s(beta * c) + s(beta * r),
    "apo_down": lambda c, r, beta, e: s(beta * c) + 1 - s(beta * (c - r)),
    "sigmoid_norm": dpo,
    "orpo": lambda c, r, beta, e: -beta * torch.log(s(log_odds(c) - log_odds(r))),
    "simpo": lambda c, r, beta, e: (
        -(1 - e) * torch.log(s(beta * c - beta * r - 0.5))
        - e * torch.log(s(-(beta * c - beta * r - 0.5)))
    ),
    "cpo": dpo,
}
LOSSES = sorted(PAIR_LOSSES)


def inputs(name: str, seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    chosen, rejected = torch.randn(2, 32, generator=random, dtype=torch.float64) * 4
    if name == "orpo":  # Log-probabilities, not their differences.
        chosen, rejected = -chosen.abs() - 1e-3, -rejected.abs() - 1e-3
    return [x.to(dtype).requires_grad_() for x in (chosen, rejected)]


def smoothing_of(name: str) -> float:
    return 0.15 if name in WITH_SMOOTHING else 0.0


def test_every_name_of_the_setting_has_a_loss_and_an_equation() -> None:
    names = set(get_args(PreferenceLossName))
    assert PAIR_LOSSES.keys() == PAPERS.keys() == names
    assert names >= LENGTH_AVERAGED
    assert names >= WITH_SMOOTHING


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("beta", [0.1, 1.7])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_are_the_papers(name: str, beta: float, dtype: torch.dtype) -> None:
    ours, papers = inputs(name, 1, dtype), inputs(name, 1)
    losses = PAIR_LOSSES[name](ours[0], ours[1], beta, smoothing_of(name))
    expected = PAPERS[name](papers[0], papers[1], beta, smoothing_of(name))
    assert losses.shape == (32,)
    assert losses.dtype == dtype
    torch.testing.assert_close(losses.double(), expected, rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    expected.sum().backward()
    for one, other in zip(ours, papers, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name: str) -> None:
    def compare(chosen: Tensor, rejected: Tensor) -> Tensor:
        return PAIR_LOSSES[name](chosen, rejected, 0.6, smoothing_of(name))

    assert torch.autograd.gradcheck(compare, inputs(name, 2))


@pytest.mark.parametrize("name", LOSSES)
def test_no_difference_overflows(name: str) -> None:
    """Sums over long answers are thousands of nats apart: the naive equations give inf or NaN."""
    sizes = torch.tensor([0.0, 1e-8, 1.0, 1e3, 1e5])
    values = -sizes if name == "orpo" else torch.cat([-sizes, sizes])
    pairs = torch.cartesian_prod(values, values)
    chosen, rejected = (pairs[:, i].clone().requires_grad_() for i in (0, 1))
    losses = PAIR_LOSSES[name](chosen, rejected, 2.0, smoothing_of(name))
    losses.sum().backward()
    assert losses.isfinite().all()
    for side in (chosen, rejected):
        assert side.grad is not None
        assert side.grad.isfinite().all()
        assert side.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_the_rejected_answer_is_pushed_down_against_the_chosen(name: str) -> None:
    """A step down the gradient makes the chosen answer likelier, compared with the rejected."""
    chosen, rejected = (torch.tensor([-1.0], requires_grad=True) for _ in range(2))
    PAIR_LOSSES[name](chosen, rejected, 0.5, smoothing_of(name)).backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert -chosen.grad > -rejected.grad


def test_values_worked_out_by_hand() -> None:
    chosen, rejected = torch.tensor([3.0]), torch.tensor([1.0])
    assert hinge(chosen, rejected, 0.25, 0.0).item() == 0.5
    assert hinge(chosen, rejected, 1.0, 0.0).item() == 0.0
    assert ipo(chosen, rejected, 0.5, 0.0).item() == 1.0
    assert sppo_hard(chosen, rejected, 0.5, 0.0).item() == 4.0 + 4.0
    assert sigmoid(chosen, chosen, 0.5, 0.3).item() == pytest.approx(math.log(2))
    assert sigmoid(rejected, chosen, 1000.0, 0.0).item() == 2000.0
    assert simpo(chosen, rejected, 0.25, 0.0, gamma=0.5).item() == pytest.approx(math.log(2))


def test_smoothing_mixes_the_pair_and_the_pair_turned_round() -> None:
    chosen, rejected = inputs("sigmoid", 3)
    straight, turned = sigmoid(chosen, rejected, 0.4, 0.0), sigmoid(rejected, chosen, 0.4, 0.0)
    mixed = sigmoid(chosen, rejected, 0.4, 0.2)
    torch.testing.assert_close(mixed, 0.8 * straight + 0.2 * turned)
    torch.testing.assert_close(smoothed(0.4 * (chosen - rejected), 0.2), mixed)


def test_robust_is_unbiased() -> None:
    """Labels that are turned round with the known probability: in the mean, the loss without."""
    chosen, rejected = inputs("robust", 4)
    mean = 0.7 * robust(chosen, rejected, 0.4, 0.3) + 0.3 * robust(rejected, chosen, 0.4, 0.3)
    torch.testing.assert_close(mean, sigmoid(chosen, rejected, 0.4, 0.0))


def test_exo_is_least_where_the_policy_holds_the_label_for_as_sure_as_it_is() -> None:
    sure = torch.tensor([math.log(0.9 / 0.1)], dtype=torch.float64, requires_grad=True)
    loss = exo_pair(sure, torch.zeros_like(sure), 1.0, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    assert sure.grad is not None
    assert sure.grad.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("x", [-1e-12, -1e-6, -0.1, -math.log(2), -1.0, -50.0, -700.0])
def test_log1mexp_is_exact(x: float) -> None:
    value = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    result = log1mexp(value)
    exact = math.log(-math.expm1(x)) if x > -1 else math.log1p(-math.exp(x))
    assert result.item() == pytest.approx(exact, rel=1e-12, abs=1e-300)
    result.backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(-1 / math.expm1(-x), rel=1e-9, abs=1e-300)


def test_log1mexp_of_a_probability_that_was_rounded_to_1() -> None:
    value = torch.zeros(1, requires_grad=True)
    result = log1mexp(value)
    result.backward()
    assert result.item() == pytest.approx(math.log(2.0**-23), rel=1e-6)
    assert value.grad is not None
    assert value.grad.item() == 0.0
