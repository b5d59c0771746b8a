"""Lion against the paper's program, in float64."""

from __future__ import annotations

import pytest
import torch

from luthier.engine.lion import Lion

RATES = (1e-2, 3e-3, 1e-3)


def by_the_paper(
    weight: torch.Tensor, gradients: list[torch.Tensor], beta1: float, beta2: float, decay: float
) -> torch.Tensor:
    """arXiv 2302.06675, program 1: update = sign(interp(g, m, beta1)) + wd * p, then m."""
    momentum = torch.zeros_like(weight)
    for rate, gradient in zip(RATES, gradients, strict=True):
        update = torch.sign(beta1 * momentum + (1 - beta1) * gradient) + decay * weight
        weight = weight - rate * update
        momentum = beta2 * momentum + (1 - beta2) * gradient
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)])
def test_equals_the_papers_program(decay: float, betas: tuple[float, float]) -> None:
    torch.manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64)
    gradients = [torch.randn(5, 3, dtype=torch.float64) for _ in RATES]
    weight = torch.nn.Parameter(start.clone())
    optimizer = Lion([weight], lr=1.0, betas=betas, weight_decay=decay)
    for rate, gradient in zip(RATES, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = gradient.clone()
        optimizer.step()
    expected = by_the_paper(start, gradients, *betas, decay)
    torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=1e-14)


def test_a_parameter_without_a_gradient_stays() -> None:
    trained, idle = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = Lion([trained, idle], lr=0.5, weight_decay=0.1)
    trained.grad = torch.tensor([2.0, 0.0])
    optimizer.step()
    assert torch.allclose(trained, torch.tensor([0.45, 0.95]))  # a gradient of 0 has no sign
    assert torch.equal(idle, torch.ones(2))
    assert idle not in optimizer.state
