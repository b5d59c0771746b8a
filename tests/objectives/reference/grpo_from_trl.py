# pyright: reportMissingImports=false
"""Write what TRL's GRPOTrainer makes of random log-probabilities to `grpo_trl.json`.

It runs where TRL is installed, which luthier does not need; the file says which version wrote it:

    python tests/objectives/reference/grpo_from_trl.py tests/objectives/reference/grpo_trl.json

The trainer's loss is a method. It is called here with an object that has what it reads, in float64.
Two micro-batches make a step, so that what divides the sum shows. `advantages` are what its rule
makes of rewards.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import trl
from trl import GRPOTrainer

TOKENS = [[3, 6, 2, 5], [1, 4, 7, 3]]
"""Tokens of the answers of each micro-batch."""
LENGTH = 7
MAX_LENGTH = 9
PLAIN: dict[str, Any] = {"epsilon": 0.2, "epsilon_high": 0.2, "beta": 0.0, "old": True}
CASES: list[dict[str, Any]] = [
    PLAIN | {"loss_type": "grpo"},
    PLAIN | {"loss_type": "dapo"},
    PLAIN | {"loss_type": "dr_grpo"},
    PLAIN | {"loss_type": "grpo", "old": False},
    PLAIN | {"loss_type": "dapo", "old": False, "beta": 0.04},
    PLAIN | {"loss_type": "grpo", "beta": 0.3},
    PLAIN | {"loss_type": "dr_grpo", "epsilon": 0.1, "epsilon_high": 0.4, "beta": 0.1},
]


class Lists(dict[str, Any]):
    """A dict whose values begin as empty lists."""

    def __missing__(self, key: str) -> list[Any]:
        self[key] = []
        return self[key]


def values(tokens: list[int], random: torch.Generator, like: torch.Tensor | None) -> torch.Tensor:
    """Make log-probabilities of right-padded answers; near to others, so that some are clipped."""
    mask = torch.arange(LENGTH) < torch.tensor(tokens)[:, None]
    drawn = torch.rand(mask.shape, generator=random, dtype=torch.float64)
    return (-drawn * 3 if like is None else like + (drawn - 0.5)) * mask


def make() -> dict[str, Any]:
    """Return the content of the file."""
    random = torch.Generator().manual_seed(0)
    policy = [values(tokens, random, None) for tokens in TOKENS]
    old, reference = (
        [values(tokens, random, like) for tokens, like in zip(TOKENS, policy, strict=True)]
        for _ in range(2)
    )
    rewards = torch.tensor([[1.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 2.0]], dtype=torch.float64)
    std = rewards.std(dim=1, keepdim=True)
    given = {
        "policy": policy,
        "old": old,
        "reference": reference,
        "advantages": list((rewards - rewards.mean(dim=1, keepdim=True)) / (std + 1e-4)),
    }
    plain = {name: [part.tolist() for part in parts] for name, parts in given.items()}
    return {
        "trl": trl.__version__,
        "tokens": TOKENS,
        "max_length": MAX_LENGTH,
        "rewards": rewards.tolist(),
        **plain,
        "cases": [case | step(given, case) for case in CASES],
    }


def step(given: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """Run the loss on both micro-batches of a step; the gradient is that of their sum."""
    leaves = [part.clone().requires_grad_() for part in given["policy"]]
    metrics = Lists()
    num_tokens = torch.tensor(float(sum(map(sum, TOKENS))), dtype=torch.float64)
    losses: list[torch.Tensor] = []
    for number, leaf in enumerate(leaves):
        inputs = {
            "prompt_ids": torch.zeros(4, 1, dtype=torch.long),
            "prompt_mask": torch.ones(4, 1, dtype=torch.long),
            "completion_ids": torch.zeros(4, LENGTH, dtype=torch.long),
            "completion_mask": (given["policy"][number] != 0).long(),
            "advantages": given["advantages"][number],
            "ref_per_token_logps": given["reference"][number],
            "num_items_in_batch": num_tokens,
        }
        if case["old"]:
            inputs["old_per_token_logps"] = given["old"][number]
        losses.append(GRPOTrainer._compute_loss(trainer(case, leaf, metrics), None, inputs))
    loss = torch.stack(losses).sum()
    gradient = torch.autograd.grad(loss, leaves)
    return {
        "value": loss.item(),
        "gradient": [part.tolist() for part in gradient],
        "metrics": {name: parts for name, parts in metrics.items() if name != "entropy"},
    }


def trainer(case: dict[str, Any], leaf: torch.Tensor, metrics: Lists) -> SimpleNamespace:
    """Make an object that has what the loss reads."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, torch.zeros_like(leaf), None),
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda t: t, reduce=lambda t, reduction: t
        ),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=2),
        model=SimpleNamespace(training=True),
        beta=case["beta"],
        epsilon_low=case["epsilon"],
        epsilon_high=case["epsilon_high"],
        loss_type=case["loss_type"],
        max_completion_length=MAX_LENGTH,
        current_gradient_accumulation_steps=2,
        importance_sampling_level="token",
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": metrics},
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(make()) + "\n", encoding="utf-8")
