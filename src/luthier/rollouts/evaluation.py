"""What the answers to validation prompts are worth: each answered once, by the likeliest tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from luthier.contracts.training import StopAskedError
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_answers
from luthier.evaluation.settings import GenerationSettings
from luthier.rollouts.rewards import RewardFunction, judge_answers


@dataclass(frozen=True, slots=True)
class RewardEvaluation:
    """Measures a model by the rewards of its answers; implements `Evaluator`.

    `eval_loss` is the mean reward with the sign turned, so that the best checkpoint and early
    stopping, which look for the lowest loss, look for the highest reward.

    Attributes:
        tokenizer: Turns ids into the texts that are judged.
        stop_token_ids: Any of these ends an answer.
        rows: Prepared prompts.
        rewards: What judges an answer.
        max_new_tokens: Longest answer.
        batch_size: Prompts answered at once.
        precision: The precision that training computes in.
        is_stopped: Asked between batches: whether to give up, because the run is to stop.
    """

    tokenizer: Any
    stop_token_ids: Sequence[int]
    rows: Any
    rewards: Sequence[RewardFunction]
    max_new_tokens: int
    batch_size: int
    precision: Precision
    is_stopped: Callable[[], bool] = lambda: False

    def __call__(self, model: Any) -> dict[str, float]:
        """Return the mean reward, that of each function, and how many answers were cut.

        Raises:
            StopAskedError: It was given up.
            RunError: A reward function fails.
        """
        started_s = perf_counter()
        settings = GenerationSettings(
            max_new_tokens=self.max_new_tokens, batch_size=self.batch_size
        )
        rows = [self.rows[number] for number in range(len(self.rows))]
        rows.sort(key=lambda row: -len(row["input_ids"]))
        texts: list[list[str]] = []
        num_cut = 0
        for start in range(0, len(rows), self.batch_size):
            if self.is_stopped():
                raise StopAskedError
            prompts = [row["input_ids"] for row in rows[start : start + self.batch_size]]
            with self.precision.autocast():
                answers = generate_answers(
                    model, self.tokenizer, prompts, settings, self.stop_token_ids
                )
            texts += [[answer.text] for answer in answers]
            num_cut += sum(answer.finish_reason == "length" for answer in answers)
        values_RF = judge_answers(self.rewards, rows, texts)[:, 0]
        weights_F = torch.tensor([judge.weight for judge in self.rewards], dtype=torch.float64)
        reward = float((values_RF * weights_F).sum(dim=1).mean())
        means_F = values_RF.mean(dim=0).tolist()
        return {
            "eval_loss": -reward,
            "eval_reward": reward,
            **{
                f"eval_rewards/{judge.name}/mean": mean
                for judge, mean in zip(self.rewards, means_F, strict=True)
            },
            "eval_completions/clipped_ratio": num_cut / len(rows),
            "eval_seconds": perf_counter() - started_s,
        }
