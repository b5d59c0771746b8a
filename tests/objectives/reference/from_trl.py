# pyright: reportMissingImports=false
"""Write what TRL's own code makes of random log-probabilities and rewards to `trl.json`.

It runs where TRL is installed, which luthier does not need, with any version that has these
methods; the file says which:

    python tests/objectives/reference/from_trl.py tests/objectives/reference/trl.json

TRL's loss functions are methods of its trainers. They are called here with an object that has what
they read, and with models that answer with the numbers that stand in the file. All is computed in
float64, so that the file can be held against to many digits.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

CHOSEN_TOKENS, REJECTED_TOKENS = [3, 6, 2, 5, 4], [5, 2, 2, 6, 1]
LENGTH = 9
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"),
    gather=lambda tensor: tensor,
    gather_for_metrics=lambda tensor: tensor,
    autocast=nullcontext,
)
DPO_CASES: list[dict[str, Any]] = [
    {"loss": "sigmoid", "beta": 0.1},
    {"loss": "sigmoid", "beta": 2.0},
    {"loss": "sigmoid", "beta": 0.3, "ld_alpha": 0.4},
    {"loss": "hinge", "beta": 0.1},
    {"loss": "hinge", "beta": 0.1, "ld_alpha": 0.0},
    {"loss": "ipo", "beta": 0.1},
    {"loss": "ipo", "beta": 0.5, "ld_alpha": 0.7},
    {"loss": "robust", "beta": 0.1, "label_smoothing": 0.0},
    {"loss": "robust", "beta": 0.4, "label_smoothing": 0.2},
    {"loss": "exo_pair", "beta": 0.1, "label_smoothing": 0.001},
    {"loss": "exo_pair", "beta": 0.5, "label_smoothing": 0.3},
    {"loss": "nca_pair", "beta": 0.1},
    {"loss": "bco_pair", "beta": 0.1},
    {"loss": "sppo_hard", "beta": 0.1},
    {"loss": "apo_zero", "beta": 0.1},
    {"loss": "apo_down", "beta": 0.1},
    {"loss": "sigmoid_norm", "beta": 2.0},
]


class Scripted(torch.nn.Module):
    """Answers with the log-probabilities, or the rewards, that belong to its input ids."""

    is_gradient_checkpointing = False

    def __init__(self, answers: dict[int, torch.Tensor], rewards: bool = False) -> None:
        super().__init__()
        self.answers, self.rewards = answers, rewards

    def forward(self, input_ids: torch.Tensor, **ignored: Any) -> Any:
        answer = self.answers[int(input_ids[0, 0])]
        if self.rewards:
            return SimpleNamespace(logits=answer)
        zero = torch.zeros_like(answer)
        others = ("entropy", "mean_logits", "log_sum_sq_probs")
        is_top1 = zero.bool()
        return SimpleNamespace(log_probs=answer, is_top1=is_top1, **dict.fromkeys(others, zero))


def answers(tokens: list[int], random: torch.Generator, scale: float) -> torch.Tensor:
    """Make log-probabilities of right-padded answers, 0 where there is no token."""
    mask = torch.arange(LENGTH - 1) < torch.tensor(tokens)[:, None]
    values = -torch.rand(mask.shape, generator=random, dtype=torch.float64) * scale
    return values * mask


def pairs(num_pairs: int, random: torch.Generator) -> dict[str, Any]:
    """Make pairs; the differences of the last two are hundreds of nats, one each way."""
    tokens = CHOSEN_TOKENS[:num_pairs] + REJECTED_TOKENS[:num_pairs]
    policy, reference = answers(tokens, random, 3.0), answers(tokens, random, 3.0)
    if num_pairs == 5:
        policy[3] *= 200
        policy[9] *= 400
    mask = torch.zeros(len(tokens), LENGTH, dtype=torch.long)
    mask[:, 1:] = policy != 0
    return {"policy": policy, "reference": reference, "mask": mask}


def dpo(given: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Run DPOTrainer's loss; the gradient is that of the mean over pairs, for each token."""
    policy = given["policy"].clone().requires_grad_()
    ids = torch.zeros_like(given["mask"])
    model = Scripted({0: policy})
    losses, weights = [case["loss"]], [1.0]
    if "sft" in case:
        losses, weights = [*losses, "sft"], [*weights, case["sft"]]
    trainer = SimpleNamespace(
        model=model,
        ref_model=Scripted({0: given["reference"]}),
        accelerator=ACCELERATOR,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        aux_loss_enabled=False,
        ld_alpha=case.get("ld_alpha"),
        precompute_ref_logps=False,
        f_divergence_type="reverse_kl",
        loss_types=losses,
        loss_weights=weights,
        beta=case["beta"],
        label_smoothing=case.get("label_smoothing", 0.0),
        use_weighting=False,
        _metrics={"train": Lists(), "eval": Lists()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {"input_ids": ids, "attention_mask": ids + 1, "completion_mask": given["mask"]}
    loss = DPOTrainer._compute_loss(trainer, model, inputs, False)
    (gradient,) = torch.autograd.grad(loss, policy)
    return case | {
        "value": loss.item(),
        "gradient": gradient.tolist(),
        "metrics": {name: values[0] for name, values in trainer._metrics["train"].items()},
    }


class Lists(dict[str, Any]):
    """A dict whose values begin as empty lists."""

    def __missing__(self, key: str) -> list[Any]:
        self[key] = []
        return self[key]


def without_reference(given: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the losses of ORPO and CPO's trainers on the sums, or means, that these hand them."""
    tokens = given["mask"].sum(1)
    found: list[dict[str, Any]] = []
    for case in (
        {"loss": "orpo", "beta": 0.1},
        {"loss": "simpo", "beta": 2.0, "simpo_gamma": 0.5},
        {"loss": "simpo", "beta": 0.7, "simpo_gamma": 1.5, "label_smoothing": 0.1},
        {"loss": "cpo", "beta": 0.1},
        {"loss": "cpo", "beta": 0.3, "label_smoothing": 0.2},
    ):
        policy = given["policy"].clone().requires_grad_()
        sums = policy.sum(1) if case["loss"] == "cpo" else policy.sum(1) / tokens
        chosen, rejected = sums.chunk(2)
        trainer = SimpleNamespace(
            accelerator=ACCELERATOR,
            alpha=0.0,
            beta=case["beta"],
            simpo_gamma=case.get("simpo_gamma"),
            label_smoothing=case.get("label_smoothing", 0.0),
            loss_type="simpo" if case["loss"] == "simpo" else "sigmoid",
        )
        if case["loss"] == "orpo":
            # Its own `.float()` is left out, for float64: what it calls "losses" is their negative.
            negative, *rewards = ORPOTrainer.odds_ratio_loss(
                trainer, Double(chosen), Double(rejected)
            )[:3]
            losses = -negative
        else:
            losses, *rewards = CPOTrainer.cpo_loss(trainer, chosen, rejected)
        losses, *rewards = (value.as_subclass(torch.Tensor) for value in (losses, *rewards))
        (gradient,) = torch.autograd.grad(losses.mean(), policy)
        names = ("rewards/chosen", "rewards/rejected")
        metrics = {name: r.mean().item() for name, r in zip(names, rewards, strict=True)}
        value = losses.mean().item()
        found.append(case | {"value": value, "gradient": gradient.tolist(), "metrics": metrics})
    return found


class Double(torch.Tensor):
    """A tensor that stays in float64 where float32 is asked for."""

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Any:
        return values.as_subclass(cls)

    def float(self, *ignored: Any, **options: Any) -> Any:
        return self


def kto(random: torch.Generator, case: dict[str, Any]) -> dict[str, Any]:
    """Run KTOTrainer's loss; without a shift z0 is cut off at 0 or not, as the numbers fall."""
    tokens = CHOSEN_TOKENS
    given = {
        name: answers(tokens, random, 3.0)
        for name in ("policy", "reference", "mismatched", "reference_mismatched")
    }
    given["mismatched"] += case["shift"] * (given["mismatched"] != 0)
    given["policy"][4] *= 200
    policy = given["policy"].clone().requires_grad_()
    ids = torch.zeros(len(tokens), LENGTH, dtype=torch.long)
    mask = torch.zeros_like(ids)
    mask[:, 1:] = policy != 0
    model = Scripted({0: policy, 1: given["mismatched"]})
    trainer = SimpleNamespace(
        model=model,
        accelerator=ACCELERATOR,
        aux_loss_enabled=False,
        calculate_KL=True,
        precompute_ref_logps=True,
        loss_type="kto",
        beta=case["beta"],
        desirable_weight=case["kto_chosen_weight"],
        undesirable_weight=case["kto_rejected_weight"],
        _metrics={"train": Lists()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    trainer._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(
        trainer, model, batch
    )
    inputs = {
        "input_ids": ids,
        "attention_mask": ids + 1,
        "completion_mask": mask,
        "KL_input_ids": ids + 1,
        "KL_attention_mask": ids + 1,
        "KL_completion_mask": mask,
        "label": torch.tensor(case["labels"]),
        "ref_logps": given["reference"].sum(1),
        "ref_KL_logps": given["reference_mismatched"].sum(1),
    }
    loss = KTOTrainer._compute_loss(trainer, model, inputs, False)
    (gradient,) = torch.autograd.grad(loss, policy)
    return (
        case
        | {name: values.tolist() for name, values in given.items()}
        | {
            "value": loss.item(),
            "gradient": gradient.tolist(),
            "metrics": {name: values[0] for name, values in trainer._metrics["train"].items()},
        }
    )


def reward(random: torch.Generator, margins: bool, centering: float | None) -> dict[str, Any]:
    """Run RewardTrainer's loss."""
    rewards = torch.randn(10, 1, generator=random, dtype=torch.float64) * 2
    rewards[3] *= 400
    rewards[9] *= 400
    leaf = rewards.clone().requires_grad_()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(center_rewards_coefficient=centering),
        accelerator=ACCELERATOR,
        _metrics={"train": Lists()},
        _total_train_tokens=0,
        _tp_size=1,
    )
    ids = torch.zeros(10, 3, dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": ids + 1}
    given = None
    if margins:
        given = torch.rand(5, generator=random, dtype=torch.float64)
        inputs["margin"] = given
    loss = RewardTrainer.compute_loss(trainer, Scripted({0: leaf}, rewards=True), inputs)
    (gradient,) = torch.autograd.grad(loss, leaf)
    return {
        "rewards": rewards[:, 0].tolist(),
        "margins": None if given is None else given.tolist(),
        "centering": centering,
        "value": loss.item(),
        "gradient": gradient[:, 0].tolist(),
        "metrics": {name: values[0] for name, values in trainer._metrics["train"].items()},
    }


def plain(given: dict[str, Any]) -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in given.items()}


def make() -> dict[str, Any]:
    """Return the content of the file."""
    random = torch.Generator().manual_seed(0)
    many, one = pairs(5, random), pairs(1, random)
    kto_case: dict[str, Any] = {"beta": 0.1, "kto_chosen_weight": 1.0, "kto_rejected_weight": 1.0}
    mixed, weighted = [True, False, True, False, True], {"beta": 0.5, "kto_chosen_weight": 1.3}
    return {
        "trl": trl.__version__,
        "pairs": plain(many) | {"cases": [dpo(many, case) for case in DPO_CASES]},
        "one_pair": plain(one)
        | {"cases": [dpo(one, {"loss": "sigmoid", "beta": 0.1, "sft": 0.6})]},
        "without_reference": plain(many) | {"cases": without_reference(many)},
        "kto": [
            kto(random, kto_case | {"labels": mixed, "shift": 1.0}),
            kto(random, kto_case | weighted | {"labels": mixed, "shift": -2.0}),
            kto(random, kto_case | weighted | {"labels": mixed, "shift": 0.5}),
            kto(random, kto_case | {"labels": [False] * 5, "shift": 1.0}),
        ],
        "reward": [
            reward(random, margins=False, centering=None),
            reward(random, margins=True, centering=None),
            reward(random, margins=True, centering=0.01),
        ],
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(make()) + "\n", encoding="utf-8")
