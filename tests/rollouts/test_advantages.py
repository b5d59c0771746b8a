from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from luthier.rollouts.advantages import group_rewards

TRL = json.loads(
    (Path(__file__).parents[1] / "objectives" / "reference" / "grpo_trl.json").read_text()
)


def test_they_are_those_of_trl():
    rewards = torch.tensor(TRL["rewards"], dtype=torch.float64)[:, :, None]
    found = group_rewards(rewards, torch.ones(1, dtype=torch.float64), scale=True)
    expected = torch.tensor(TRL["advantages"], dtype=torch.float64)
    assert torch.allclose(found.advantages, expected, atol=1e-12)
    assert not found.is_flat.any()


def test_functions_add_up_by_their_weights():
    rewards = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    found = group_rewards(rewards, torch.tensor([2.0, 1.0], dtype=torch.float64), scale=False)
    assert found.total.tolist() == [[2.0, 1.0, 3.0]]
    assert found.advantages.tolist() == [[0.0, -1.0, 1.0]]
    assert found.std.tolist() == [1.0]


@pytest.mark.parametrize("scale", [True, False])
def test_a_group_of_equal_rewards_teaches_nothing(scale: bool):
    # Three times 0.1 has another mean than 0.1.
    rewards = torch.full((2, 3, 1), 0.1, dtype=torch.float64)
    rewards[1, 0] = 0.2
    found = group_rewards(rewards, torch.ones(1, dtype=torch.float64), scale=scale)
    assert found.is_flat.tolist() == [True, False]
    assert found.advantages[0].tolist() == [0.0, 0.0, 0.0]
    assert found.advantages[1, 0] > 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(-3, 3), st.booleans())
def test_a_constant_changes_nothing_and_the_sum_is_zero(
    rewards: list[float], constant: float, scale: bool
):
    one = torch.ones(1, dtype=torch.float64)
    totals = torch.tensor(rewards, dtype=torch.float64)[None, :, None]
    found = group_rewards(totals, one, scale=scale).advantages
    moved = group_rewards(totals + constant, one, scale=scale).advantages
    assert torch.allclose(found, moved, atol=1e-9)
    assert abs(float(found.sum())) < 1e-9
