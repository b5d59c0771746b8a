"""Prompts in, answers out, each with what it is worth: one rollout of a model in training.

The decoding is that of `luthier generate` (`evaluation/generation.py`), by transformers. The model
goes back to the mode that it was in, and torch's random state to where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from luthier.batches.collate import Collate
from luthier.contracts.question import Question
from luthier.core.errors import RunError
from luthier.engine.memory import is_out_of_memory
from luthier.engine.precision import Precision
from luthier.evaluation.generation import generate_tokens, read_answer
from luthier.evaluation.settings import GenerationSettings
from luthier.objectives.grpo import AnswerPolicy, AnswerTokens
from luthier.rollouts.advantages import GroupRewards, group_rewards
from luthier.rollouts.answers import Rollout, rollout_batch
from luthier.rollouts.rewards import RewardFunction, judge_answers
from luthier.rollouts.settings import RolloutSettings

Sample = Mapping[str, Any]
"""One answer for people to look at: where its prompt stands, both texts, and the rewards."""


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws and judges answers; a `Draw` of `rollouts/stream.py`.

    Attributes:
        model: A causal language model, or a peft model around one.
        tokenizer: Turns ids into the texts that are judged.
        stop_token_ids: Any of these ends an answer.
        rows: Random access to prepared prompts.
        rewards: What judges an answer.
        settings: How answers are drawn.
        policy: Computes the log-probabilities of answers.
        collate: Makes a batch of rows.
        precision: The precision that training computes in.
        beta: Weight of the KL; above 0 the model below the adapter judges the answers too.
        tell: Told the seed, and the first answer to each prompt once it is judged.
    """

    model: Any
    tokenizer: Any
    stop_token_ids: Sequence[int]
    rows: Any
    rewards: Sequence[RewardFunction]
    settings: RolloutSettings
    policy: AnswerPolicy
    collate: Collate
    precision: Precision
    beta: float = 0.0
    tell: Callable[[int, Sequence[Sample]], None] = lambda _seed, _samples: None

    def __call__(self, numbers: Sequence[Sequence[int]], seed: int) -> list[list[Rollout]]:
        """Answer prompts, each `num_generations` times.

        Args:
            numbers: The prompts of each micro-batch.
            seed: Draws the tokens.

        Raises:
            RunError: A reward function fails, or memory runs out.
            DataError: A prompt leaves no room for an answer in the model's context.
        """
        rows = [self.rows[number] for part in numbers for number in part]
        size = self.settings.num_generations
        drawn = self._draw([row["input_ids"] for row in rows for _ in range(size)], seed)
        by_prompt = [drawn[first : first + size] for first in range(0, len(drawn), size)]
        groups = self._judge(rows, by_prompt, seed)
        parts: list[list[Rollout]] = []
        for part in numbers:
            rollouts = [rollout for group in groups[: len(part)] for rollout in group]
            del groups[: len(part)]
            parts.append(self._with_log_probs(rollouts))
        return parts

    def _draw(self, prompts: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
        settings = GenerationSettings(
            max_new_tokens=self.settings.max_completion_length,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            batch_size=self.settings.rollout_batch_size,
            seed=seed,
        )
        try:
            with self.precision.autocast():
                return generate_tokens(
                    self.model, self.tokenizer, prompts, settings, self.stop_token_ids
                )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(
                f"memory ran out while {self.settings.rollout_batch_size} answers were drawn",
                mend="Lower rollout_batch_size or max_completion_length.",
            ) from error

    def _judge(
        self, rows: Sequence[Any], drawn: Sequence[list[list[int]]], seed: int
    ) -> list[list[Rollout]]:
        """Reward the answers to each row, and hold them against each other."""
        texts = [
            [read_answer(self.tokenizer, ids, self.stop_token_ids).text for ids in group]
            for group in drawn
        ]
        values_GNF = judge_answers(self.rewards, rows, texts)
        weights_F = torch.tensor([judge.weight for judge in self.rewards], dtype=torch.float64)
        found = group_rewards(values_GNF, weights_F, scale=self.settings.scale_rewards)
        self.tell(seed, self._samples(rows, texts, values_GNF))
        stops = set(self.stop_token_ids)
        is_cut_GN = torch.tensor([[ids[-1] not in stops for ids in group] for group in drawn])
        reported = {"completions/clipped_ratio": is_cut_GN, **self._reported(found, values_GNF)}
        return [
            [
                Rollout(
                    list(row["input_ids"]),
                    ids,
                    float(found.advantages[g, n]),
                    {name: float(values_GN[g, n]) for name, values_GN in reported.items()},
                )
                for n, ids in enumerate(group)
            ]
            for g, (row, group) in enumerate(zip(rows, drawn, strict=True))
        ]

    def _reported(self, found: GroupRewards, values_GNF: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what is logged of each answer, under TRL's names; each is (G, N)."""
        like_GN = found.total
        reported = {
            "reward": like_GN,
            "reward_std": found.std[:, None].expand_as(like_GN),
            "frac_reward_zero_std": found.is_flat[:, None].expand_as(like_GN),
        }
        for judge, values_GN in zip(self.rewards, values_GNF.unbind(2), strict=True):
            reported[f"rewards/{judge.name}/mean"] = values_GN
            std_G1 = values_GN.std(dim=1, keepdim=True)
            reported[f"rewards/{judge.name}/std"] = std_G1.expand_as(like_GN)
        return reported

    def _samples(
        self, rows: Sequence[Any], texts: Sequence[Sequence[str]], values_GNF: torch.Tensor
    ) -> list[Sample]:
        names = [judge.name for judge in self.rewards]
        return [
            {
                "origin": row["origin"],
                "prompt": Question.from_json(row["question"]).prompt,
                "answer": group[0],
                "rewards": dict(zip(names, values_NF[0].tolist(), strict=True)),
            }
            for row, group, values_NF in zip(rows, texts, values_GNF, strict=True)
        ]

    def _with_log_probs(self, rollouts: list[Rollout]) -> list[Rollout]:
        """Add what is asked about answers once the weights have changed, where it will be."""
        if self.settings.num_iterations > 1:
            found = self._log_probs(rollouts, nullcontext())
            pairs = zip(rollouts, found, strict=True)
            rollouts = [replace(rollout, old_log_probs=values) for rollout, values in pairs]
        if self.beta:
            found = self._log_probs(rollouts, self.model.disable_adapter())
            pairs = zip(rollouts, found, strict=True)
            rollouts = [replace(rollout, reference_log_probs=values) for rollout, values in pairs]
        return rollouts

    def _log_probs(
        self, rollouts: Sequence[Rollout], way: AbstractContextManager[Any]
    ) -> list[list[float]]:
        device = next(self.model.parameters()).device
        batch = {
            name: tensor.to(device)
            for name, tensor in rollout_batch(rollouts, self.collate).items()
        }
        tokens = AnswerTokens.of(batch["labels"])
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with self.precision.autocast(), torch.inference_mode(), way:
                log_probs_N = self.policy.log_probs(self.model, batch, tokens)
        finally:
            for module, training in modes:
                module.training = training
        lengths = [len(rollout.answer_ids) for rollout in rollouts]
        return [part.tolist() for part in log_probs_N.float().cpu().split(lengths)]
