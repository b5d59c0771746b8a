"""Sums for means, and the calibration error against its definition in a loop."""

from __future__ import annotations

import math

import pytest
import torch

from luthier.contracts.training import add_metrics
from luthier.objectives.metric_sums import calibration_error, mean_of, pair_metrics


def test_a_mean_of_all_and_of_some() -> None:
    values = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    assert mean_of(values).mean() == 3.0
    some = mean_of(values, torch.tensor([True, False, True]))
    assert (some.mean(), some.weight) == (3.5, 2.0)
    assert not some.total.requires_grad
    assert math.isnan(mean_of(values, torch.tensor([False] * 3)).mean())


def test_rewards_of_pairs() -> None:
    found = pair_metrics(torch.tensor([1.0, 2.0, 3.0, 0.0]), torch.tensor([0.0, 4.0, 3.0, -8.0]))
    assert {name: metric.mean() for name, metric in found.items()} == {
        "rewards/chosen": 1.5,
        "rewards/rejected": -0.25,
        "rewards/accuracies": 0.5,  # Equal rewards are not right.
        "rewards/margins": 1.75,
    }
    assert "scores/margins" in pair_metrics(torch.ones(1), torch.ones(1), prefix="scores")


def expected_calibration_error(margins: list[float], num_bins: int) -> float:
    """Guo et al., equation 3: gaps between mean accuracy and mean sureness, weighed by size."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(num_bins)]
    for margin in margins:
        sure = 1 / (1 + math.exp(-abs(margin)))
        right = 0.5 if margin == 0 else float(margin > 0)
        bins[min(int((sure - 0.5) * 2 * num_bins), num_bins - 1)].append((sure, right))
    gaps = 0.0
    for members in filter(None, bins):
        sure, right = (sum(part) / len(members) for part in zip(*members, strict=True))
        gaps += len(members) / len(margins) * abs(right - sure)
    return gaps


@pytest.mark.parametrize("num_bins", [1, 4, 10])
def test_calibration_error_is_the_definitions(num_bins: int) -> None:
    random = torch.Generator().manual_seed(0)
    margins = torch.randn(300, generator=random, dtype=torch.float64) * 3 + 0.7
    margins[:3] = torch.tensor([0.0, 600.0, -600.0])
    found = calibration_error(margins, num_bins)
    expected = expected_calibration_error(margins.tolist(), num_bins)
    assert found.total.shape == (num_bins,)
    assert found.mean() == pytest.approx(expected, rel=1e-9)
    assert expected > 0.01


def test_parts_of_a_calibration_error_add_up() -> None:
    """A mean over batches of their errors is too large: a single pair is never right."""
    margins = torch.randn(64, generator=torch.Generator().manual_seed(1)) + 1
    sums, of_singles = {}, 0.0
    for margin in margins:
        part = calibration_error(margin[None])
        of_singles += part.mean() / 64
        sums = add_metrics(sums, {"it": part})
    whole = calibration_error(margins).mean()
    assert sums["it"].mean() == pytest.approx(whole, rel=1e-5)
    assert of_singles > 1.2 * whole


def test_a_judge_that_is_as_right_as_it_is_sure_has_no_error() -> None:
    three_of_four = math.log(3.0)
    margins = torch.tensor([three_of_four] * 3 + [-three_of_four])
    assert calibration_error(margins).mean() == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(-margins).mean() == pytest.approx(0.5)
