"""Preference optimisation against TRL's own numbers, and how its sums add up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from luthier.contracts.preference import PairLogProbs
from luthier.objectives.causal_lm import token_log_probs
from luthier.objectives.find_head import find_head
from luthier.objectives.preference import (
    PreferenceOptimization,
    preference_loss,
    preference_losses,
)
from luthier.objectives.settings import (
    WITH_SMOOTHING,
    WITHOUT_REFERENCE,
    PreferenceLossName,
    PreferenceSettings,
)

TRL = json.loads((Path(__file__).parent / "reference" / "trl.json").read_text(encoding="utf-8"))
NAMES = sorted(get_args(PreferenceLossName))


def case_name(case: dict[str, Any]) -> str:
    return "-".join(f"{value}" for name, value in case.items() if name in KNOWN)


KNOWN = {
    "loss": "pref_loss",
    "beta": "pref_beta",
    "label_smoothing": "dpo_label_smoothing",
    "ld_alpha": "ld_alpha",
    "simpo_gamma": "simpo_gamma",
    "sft": "pref_ftx",
}
"""The cases' names for settings."""


def settings_of(case: dict[str, Any]) -> PreferenceSettings:
    return PreferenceSettings(**{KNOWN[name]: case[name] for name in KNOWN if name in case})


def pairs_of(log_probs_SL: torch.Tensor) -> PairLogProbs:
    """Sum token by token: chosen answers, then rejected ones, right-padded with zeros."""
    mask = log_probs_SL != 0
    tokens = mask.sum(1)
    chosen_tokens, rejected_tokens = tokens.chunk(2)
    shared = torch.minimum(chosen_tokens, rejected_tokens).repeat(2)
    in_shared = mask & (mask.cumsum(1) <= shared[:, None])
    chosen, rejected = log_probs_SL.sum(1).chunk(2)
    chosen_shared, rejected_shared = (log_probs_SL * in_shared).sum(1).chunk(2)
    return PairLogProbs(
        *(chosen, rejected, chosen_tokens, rejected_tokens, chosen_shared, rejected_shared)
    )


def given(part: str) -> tuple[torch.Tensor, torch.Tensor]:
    policy, reference = (
        torch.tensor(TRL[part][name], dtype=torch.float64) for name in ("policy", "reference")
    )
    return policy.requires_grad_(), reference


def check(case: dict[str, Any], mean: torch.Tensor, policy: torch.Tensor) -> None:
    (gradient,) = torch.autograd.grad(mean, policy)
    # TRL's smoothing constants are float32 in one loss.
    assert mean.item() == pytest.approx(case["value"], rel=1e-7)
    expected = torch.tensor(case["gradient"], dtype=torch.float64)
    # What stands at padding has no meaning; here the mask is zero, there the sum is not masked.
    is_token = policy != 0
    torch.testing.assert_close(gradient[is_token], expected[is_token], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("part", "case"),
    [(part, case) for part in ("pairs", "one_pair") for case in TRL[part]["cases"]],
    ids=[
        f"{part}-{case_name(case)}" for part in ("pairs", "one_pair") for case in TRL[part]["cases"]
    ],
)
def test_value_gradient_and_metrics_are_the_dpo_trainers(part: str, case: dict[str, Any]) -> None:
    """Each token's gradient, of pairs whose differences are moderate and of such as are huge."""
    policy, reference = given(part)
    loss = preference_loss(pairs_of(policy), pairs_of(reference), settings_of(case))
    check(case, loss.total / loss.weight, policy)
    names = {"rewards/accuracies", "logps/chosen", "logps/rejected"}
    if case["loss"] not in ("ipo", "sigmoid_norm"):
        names |= {"rewards/chosen", "rewards/rejected", "rewards/margins"}
    if "ld_alpha" in case:
        names -= {"logps/chosen", "logps/rejected"}  # Here they are the plain sums.
    for name in names:
        assert loss.metrics[name].mean() == pytest.approx(case["metrics"][name], rel=1e-6), name


@pytest.mark.parametrize("case", TRL["without_reference"]["cases"], ids=case_name)
def test_value_gradient_and_rewards_are_the_orpo_and_cpo_trainers(case: dict[str, Any]) -> None:
    policy, _ = given("without_reference")
    settings = settings_of(case)
    pairs = preference_losses(pairs_of(policy), None, settings)
    check(case, (pairs.losses - settings.supervised_weight * pairs.supervised).mean(), policy)
    for name, rewards in (("chosen", pairs.chosen), ("rejected", pairs.rejected)):
        assert rewards.mean().item() == pytest.approx(case["metrics"][f"rewards/{name}"], rel=1e-7)


def test_the_cases_cover_every_loss() -> None:
    covered = {
        case["loss"] for part in TRL if part.endswith("pairs") for case in TRL[part]["cases"]
    }
    covered |= {case["loss"] for case in TRL["without_reference"]["cases"]}
    assert covered == set(NAMES)


def random_pairs(seed: int, num_pairs: int = 8) -> PairLogProbs:
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 12, (2 * num_pairs,), generator=random)
    mask = torch.arange(12) < lengths[:, None]
    return pairs_of(-torch.rand(mask.shape, generator=random).double() * mask * 2)


def some(pairs: PairLogProbs, rows: torch.Tensor) -> PairLogProbs:
    fields = {name: getattr(pairs, name)[rows] for name in pairs.__slots__}
    return PairLogProbs(**fields)


def settings_for(name: str, **fields: Any) -> PreferenceSettings:
    smoothing = 0.1 if name in WITH_SMOOTHING else 0.0
    return PreferenceSettings.model_validate(
        {"pref_loss": name, "dpo_label_smoothing": smoothing, **fields}
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_of_8_is_8_batches_of_1(name: str) -> None:
    """The supervised term included, whatever the answers' lengths: it belongs to its pair."""
    ld_alpha = None if name in WITHOUT_REFERENCE else 0.3
    policy, reference = random_pairs(0), random_pairs(1)
    reference = replace(
        reference,
        chosen_tokens=policy.chosen_tokens,
        rejected_tokens=policy.rejected_tokens,
    )

    def score(model: Any, batch: Any) -> tuple[PairLogProbs, PairLogProbs]:
        return some(policy, batch["pairs"]), some(reference, batch["pairs"])

    objective = PreferenceOptimization(
        settings=settings_for(name, pref_ftx=0.7, ld_alpha=ld_alpha),
        score=score,
        count_pairs=lambda batch: torch.tensor(float(len(batch["pairs"]))),
    )
    model, batch = torch.nn.Identity(), {"pairs": torch.arange(8)}
    whole = objective(model, batch)
    parts = [objective(model, {"pairs": pair[None]}) for pair in batch["pairs"]]
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=1e-12)
    assert sum(float(part.weight) for part in parts) == float(whole.weight) == 8.0
    assert float(objective.weight(batch)) == 8.0
    assert sum(int(part.num_tokens) for part in parts) == int(whole.num_tokens)
    assert whole.num_correct is None
    for metric_name, metric in whole.metrics.items():
        first, *others = (part.metrics[metric_name] for part in parts)
        for other in others:
            first += other
        assert first.mean() == pytest.approx(metric.mean(), rel=1e-12), metric_name


@pytest.mark.parametrize(
    ("fields", "weight"),
    [
        ({"pref_ftx": 0.5}, 0.5),
        ({"pref_loss": "orpo"}, 1.0),
        ({"pref_loss": "orpo", "pref_ftx": 0.5}, 1.5),
        ({"pref_loss": "cpo"}, 1.0),
        ({"pref_loss": "cpo", "cpo_alpha": 0.2}, 0.2),
        ({"pref_loss": "cpo", "cpo_alpha": 0.2, "pref_ftx": 0.5}, 0.7),
        ({"pref_loss": "simpo", "pref_ftx": 0.5}, 0.5),
    ],
)
def test_the_supervised_term_is_the_mean_of_each_chosen_answer(
    fields: dict[str, Any], weight: float
) -> None:
    policy, reference = random_pairs(2), random_pairs(3)
    settings = PreferenceSettings(**fields)
    pairs = preference_losses(policy, reference, settings)
    mean_losses = -policy.chosen / policy.chosen_tokens
    assert torch.equal(pairs.supervised, mean_losses)
    loss = preference_loss(policy, reference, settings)
    assert loss.metrics["nll_loss"].mean() == pytest.approx(mean_losses.mean().item())
    # A mean over all chosen tokens, as TRL takes it, is another number on these lengths.
    of_tokens = -policy.chosen.sum() / policy.chosen_tokens.sum()
    assert abs(of_tokens - mean_losses.mean()) > 1e-3
    heavier = settings.model_copy(update={"pref_ftx": settings.pref_ftx + 1.0})
    grown = preference_losses(policy, reference, heavier).losses - pairs.losses
    torch.testing.assert_close(grown, mean_losses)
    assert settings.supervised_weight == pytest.approx(weight)


def test_without_a_supervised_term_none_is_told() -> None:
    loss = preference_loss(random_pairs(2), random_pairs(3), PreferenceSettings())
    assert "nll_loss" not in loss.metrics


@pytest.mark.parametrize("name", sorted(set(NAMES) - WITHOUT_REFERENCE))
def test_reference_free_is_a_reference_that_finds_all_equal(name: str) -> None:
    policy = random_pairs(4)
    zero = replace(
        policy, chosen=torch.zeros_like(policy.chosen), rejected=torch.zeros_like(policy.rejected)
    )
    free = settings_for(name, reference_free=True)
    expected = preference_losses(policy, zero, settings_for(name))
    for reference in (None, random_pairs(5)):
        found = preference_losses(policy, reference, free)
        assert torch.equal(found.losses, expected.losses)
        assert torch.equal(found.chosen, expected.chosen)


@pytest.mark.parametrize("name", sorted(WITHOUT_REFERENCE))
def test_a_reference_that_is_not_needed_is_not_read(name: str) -> None:
    policy = random_pairs(6)
    alone = preference_losses(policy, None, settings_for(name))
    beside = preference_losses(policy, random_pairs(7), settings_for(name))
    assert torch.equal(alone.losses, beside.losses)


def test_ld_alpha_of_1_is_the_plain_loss_and_of_0_the_shared_length() -> None:
    policy, reference = random_pairs(8), random_pairs(8)
    reference = replace(reference, chosen=reference.chosen * 0.5)
    plain = preference_losses(policy, reference, PreferenceSettings())
    full = preference_losses(policy, reference, PreferenceSettings(ld_alpha=1.0))
    torch.testing.assert_close(full.losses, plain.losses)
    assert policy.chosen_shared is not None
    assert reference.chosen_shared is not None
    cut = preference_losses(policy, reference, PreferenceSettings(ld_alpha=0.0))
    expected = 0.1 * (policy.chosen_shared - reference.chosen_shared)
    torch.testing.assert_close(cut.chosen, expected)


def test_ld_alpha_leaves_the_supervised_term_whole() -> None:
    settings = PreferenceSettings(ld_alpha=0.0, pref_ftx=1.0)
    policy = random_pairs(9)
    pairs = preference_losses(policy, random_pairs(10), settings)
    assert torch.equal(pairs.supervised, -policy.chosen / policy.chosen_tokens)


def test_a_reference_that_is_missing() -> None:
    with pytest.raises(ValueError, match="ipo needs the reference"):
        preference_losses(random_pairs(0), None, PreferenceSettings(pref_loss="ipo"))


@pytest.mark.parametrize("name", ["chosen_shared", "rejected_shared"])
def test_shared_sums_that_are_missing(name: str) -> None:
    pairs = random_pairs(0)
    missing = replace(pairs, **{name: None})
    for policy, reference in ((missing, pairs), (pairs, missing)):
        with pytest.raises(ValueError, match="ld_alpha needs sums over the shared length"):
            preference_losses(policy, reference, PreferenceSettings(ld_alpha=0.5))


def test_an_answer_without_tokens_divides_by_nothing() -> None:
    zero, none = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    empty = PairLogProbs(zero, zero, none, none)
    for name in ("ipo", "simpo", "orpo"):
        settings = settings_for(name, pref_ftx=1.0)
        assert preference_losses(empty, empty, settings).losses.isfinite().all()


def test_a_model_moves_towards_the_chosen_answer(
    tiny_model: Any, random_batch: Callable[..., dict[str, torch.Tensor]]
) -> None:
    """From the reference itself the loss is log 2, and a step down makes a margin."""
    head, _ = find_head(tiny_model)
    assert head is not None
    batch = random_batch((9, 5, 7, 8))

    def log_probs(model: Any, batch: Any) -> PairLogProbs:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        hidden = head.hidden_states(model, inputs)
        return pairs_of(token_log_probs(hidden, batch["labels"], head))

    with torch.no_grad():
        reference = log_probs(tiny_model, batch)
    objective = PreferenceOptimization(
        settings=PreferenceSettings(),
        score=lambda model, batch: (log_probs(model, batch), reference),
        count_pairs=lambda batch: torch.tensor(len(batch["labels"]) / 2),
    )
    before = objective(tiny_model, batch)
    assert before.total.item() == pytest.approx(2 * math.log(2), rel=1e-6)
    assert before.metrics["rewards/margins"].mean() == 0.0
    before.total.backward()
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            parameter -= 0.01 * parameter.grad
    after = objective(tiny_model, batch)
    assert after.total.item() < before.total.item()
    assert after.metrics["rewards/accuracies"].mean() == 1.0
    assert reference.chosen.requires_grad is False
