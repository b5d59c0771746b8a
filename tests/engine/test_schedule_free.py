"""Schedule-free AdamW: the paper's three sequences, and who sees which of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from luthier.engine.schedule_free import (
    ScheduleFreeAdamW,
    averaged_weights,
    on_averaged_weights,
    settle_averaged_weights,
)

RATES = (0.0, 5e-3, 1e-2, 1e-2, 1e-2)


def by_the_paper(
    start: torch.Tensor, gradients: Sequence[torch.Tensor], betas: tuple[float, float], decay: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """arXiv 2405.15682, algorithm 1: x and y after the last step."""
    beta1, beta2 = betas
    x, z, y = start, start, start
    square, weights = torch.zeros_like(start), 0.0
    for number, (rate, gradient) in enumerate(zip(RATES, gradients, strict=True), start=1):
        square = beta2 * square + (1 - beta2) * gradient**2
        unbiased = square / (1 - beta2**number)
        z = z - rate * gradient / (unbiased.sqrt() + 1e-8) - rate * decay * y
        weights += rate**2
        share = rate**2 / weights if weights else 0.0
        x = (1 - share) * x + share * z
        y = (1 - beta1) * z + beta1 * x
    return x, y


def drawn(seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(seed)
    start, *gradients = torch.randn(1 + len(RATES), 5, 3, dtype=torch.float64)
    return start, gradients


def stepped(
    optimizer: Any, parameter: Any, gradients: Sequence[torch.Tensor], rates: Sequence[float]
) -> None:
    for rate, gradient in zip(rates, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_equals_the_papers_algorithm(decay: float, betas: tuple[float, float]) -> None:
    start, gradients = drawn()
    weight = torch.nn.Parameter(start.clone())
    optimizer = ScheduleFreeAdamW([weight], lr=1.0, betas=betas, weight_decay=decay)
    stepped(optimizer, weight, gradients, RATES)
    x, y = by_the_paper(start, gradients, betas, decay)
    torch.testing.assert_close(weight.detach(), y, rtol=0, atol=1e-14)
    with averaged_weights(optimizer):
        torch.testing.assert_close(weight.detach(), x, rtol=0, atol=1e-14)


@pytest.mark.skipif(find_spec("schedulefree") is None, reason="schedulefree is not installed")
def test_equals_the_authors_package() -> None:
    import schedulefree  # pyright: ignore[reportMissingImports]

    start, gradients = drawn()
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizer = ScheduleFreeAdamW([ours], lr=1.0, weight_decay=0.1)
    stepped(optimizer, ours, gradients, RATES)
    reference = schedulefree.AdamWScheduleFree([theirs], lr=1.0, weight_decay=0.1)
    reference.train()
    stepped(reference, theirs, gradients, RATES)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)
    reference.eval()
    settle_averaged_weights(optimizer)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


def test_what_is_looked_at_is_kept_and_what_is_trained_comes_back() -> None:
    start, gradients = drawn()
    weight = torch.nn.Parameter(start.clone())
    optimizer = ScheduleFreeAdamW([weight], lr=1.0)
    stepped(optimizer, weight, gradients, RATES)
    before = weight.detach().clone()
    seen = on_averaged_weights(optimizer, lambda scale: weight.detach() * scale)(1.0)
    kept = on_averaged_weights(optimizer, weight.detach)()
    assert torch.equal(weight, before)
    assert torch.equal(kept, seen)
    assert not torch.equal(kept, before)
    with pytest.raises(RuntimeError, match="stop"), averaged_weights(optimizer):
        raise RuntimeError("stop")
    assert torch.equal(weight, before)
    settle_averaged_weights(optimizer)
    assert torch.equal(weight, seen)
    with averaged_weights(optimizer):
        assert torch.equal(weight, seen)


def test_a_saved_state_brings_back_what_is_trained() -> None:
    start, gradients = drawn()
    weight = torch.nn.Parameter(start.clone())
    optimizer = ScheduleFreeAdamW([weight], lr=1.0, weight_decay=0.1)
    stepped(optimizer, weight, gradients[:3], RATES[:3])
    state = copy.deepcopy(optimizer.state_dict())
    assert "y" not in optimizer.state[weight]
    with averaged_weights(optimizer):
        again = torch.nn.Parameter(weight.detach().clone())
    other = ScheduleFreeAdamW([again], lr=1.0, weight_decay=0.1)
    other.load_state_dict(state)
    assert torch.equal(again, weight)
    for one, parameter in ((optimizer, weight), (other, again)):
        stepped(one, parameter, gradients[3:], RATES[3:])
    assert torch.equal(again, weight)
    assert torch.equal(other.state[again]["z"], optimizer.state[weight]["z"])


def test_other_optimisers_have_one_sequence() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2)
    optimizer.step()
    data = weight.data_ptr()
    with averaged_weights(optimizer):
        assert weight.data_ptr() == data
    settle_averaged_weights(optimizer)
    assert weight.data_ptr() == data
    assert optimizer.state


def test_a_parameter_without_a_gradient_stays() -> None:
    trained, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = ScheduleFreeAdamW([trained, idle], lr=0.5)
    trained.grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    with averaged_weights(optimizer):
        assert torch.equal(idle, torch.ones(2))
        assert torch.allclose(trained, torch.full((2,), 0.5))
    optimizer.load_state_dict(state)
    assert idle not in optimizer.state
