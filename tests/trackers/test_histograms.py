"""Histograms count as numpy does, and those of gradients are of the step's own gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from luthier.contracts.training import Progress
from luthier.trackers import histograms
from luthier.trackers.histograms import Histogram, HistogramTap, histogram_of


def test_a_histogram_is_numpys(monkeypatch: pytest.MonkeyPatch):
    tensor = torch.randn(37, 11, generator=torch.Generator().manual_seed(1))
    for numbers_at_once in (2**24, 50):
        monkeypatch.setattr(histograms, "NUMBERS_AT_ONCE", numbers_at_once)
        found = histogram_of(tensor, num_bins=8)
        assert found is not None
        counts, edges = np.histogram(tensor.numpy(), bins=8)
        assert found.counts == counts.tolist()
        assert found.edges == pytest.approx(edges.tolist(), abs=1e-6)
        assert found.total == pytest.approx(float(tensor.sum()), rel=1e-5)
        assert found.total_squares == pytest.approx(float(tensor.square().sum()), rel=1e-5)


def test_numbers_that_are_not_finite_are_left_out():
    found = histogram_of(torch.tensor([math.nan, -math.inf, 1.0, 3.0]), num_bins=2)
    assert found == Histogram([1, 1], [1.0, 2.0, 3.0], 4.0, 10.0)
    assert histogram_of(torch.tensor([math.nan])) is None
    assert histogram_of(torch.zeros(0)) is None


def test_a_tensor_of_one_number_has_a_width():
    found = histogram_of(torch.zeros(5, dtype=torch.bfloat16), num_bins=2)
    assert found == Histogram([0, 5], [-0.5, 0.0, 0.5], 0.0, 0.0)


def test_the_tap_sees_weights_and_gradients_before_every_second_step():
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    optimizer = torch.optim.SGD([model.weight], lr=1.0)
    progress, seen = Progress(), []
    HistogramTap(2, lambda *found: seen.append(found)).watch(model, optimizer, progress)
    for value in (1.0, 2.0, 3.0, 4.0):
        torch.nn.init.constant_(model.weight, value)
        model.weight.grad = torch.full_like(model.weight, -value)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
    assert [step for step, _ in seen] == [2, 4]
    assert list(seen[0][1]) == ["weights/weight", "gradients/weight"]
    assert seen[1][1]["weights/weight"].total == 8.0
    assert seen[1][1]["gradients/weight"].total == -8.0


def test_the_tap_passes_over_what_has_no_gradient():
    model, seen = torch.nn.Linear(2, 1), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    HistogramTap(1, lambda *found: seen.append(found)).watch(model, optimizer, Progress())
    optimizer.step()
    assert list(seen[0][1]) == ["weights/weight", "weights/bias"]
