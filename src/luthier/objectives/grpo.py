"""Group relative policy optimisation: answers that beat their group become likelier.

In: answers that the model drew itself, with an advantage each. Out: a sum over their tokens:

    -min(ratio x advantage, clip(ratio, 1 - epsilon, 1 + epsilon_high) x advantage) + beta x KL

The ratio is that of a token's probabilities now and when it was drawn. Where nothing has been
learned since, it is 1, its gradient is that of the log-probability, and the loss is about 0: what
rises is the reward, not the loss that falls.

What is known of an answer stands in the batch at each of its tokens, so that batches are cut and
moved as any other: `advantages`, the log-probabilities `old_log_probs` and `reference_log_probs`,
and what is only logged (`REPORTED`). All have the shape of the labels.

Shape suffixes: B rows, L tokens, N answer tokens, A answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from luthier.contracts.rows import IGNORE_INDEX
from luthier.contracts.training import LossSum, MetricSum
from luthier.objectives.causal_lm import log_probs_after
from luthier.objectives.metric_sums import mean_of
from luthier.objectives.settings import GrpoSettings
from luthier.objectives.sft import model_inputs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head

REPORTED = "reported/"
"""Begins the names of values that are only logged, as means over answers, under what follows."""


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """The answer tokens of a batch, in its order.

    Attributes:
        rows: (N,) the row of each, and `columns` (N,) its place in it.
        targets: (N,) the tokens.
        answers: (N,) which answer each belongs to.
        starts: (A,) the place of each answer's first token among the N.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    answers: torch.Tensor
    starts: torch.Tensor

    @classmethod
    def of(cls, labels_BL: torch.Tensor) -> AnswerTokens:
        """Find the answers: each run of labels is one, for a prompt stands before it."""
        is_answer_BL = labels_BL != IGNORE_INDEX
        is_start_BL = is_answer_BL & ~F.pad(is_answer_BL[:, :-1], (1, 0))
        rows_N, columns_N = is_answer_BL.nonzero().unbind(1)
        is_start_N = is_start_BL[rows_N, columns_N]
        return cls(
            rows_N,
            columns_N,
            labels_BL[rows_N, columns_N],
            is_start_N.cumsum(0) - 1,
            is_start_N.nonzero().flatten(),
        )

    @property
    def lengths(self) -> torch.Tensor:
        """(A,) tokens of each answer."""
        return torch.bincount(self.answers, minlength=len(self.starts))

    def take(self, values_BL: torch.Tensor) -> torch.Tensor:
        """(N,) the values that stand at the tokens."""
        return values_BL[self.rows, self.columns]


@dataclass(frozen=True, slots=True)
class AnswerPolicy:
    """How probable a model finds the answers of a batch.

    Attributes:
        head: The head of the model (`find_head`): only answer tokens go through it. None computes
            the model's own logits, of all tokens.
        inputs: Makes the model's keyword arguments from a batch.
        temperature: Divides the logits, as it did when the answers were drawn.
    """

    head: Head | None = None
    inputs: Callable[[Batch], dict[str, Any]] = model_inputs
    temperature: float = 1.0

    def log_probs(self, model: torch.nn.Module, batch: Batch, tokens: AnswerTokens) -> torch.Tensor:
        """Return the log-probability of each answer token, (N,) of float32, with gradient.

        Raises:
            ValueError: The model isn't the one that the head was found in.
        """
        inputs = self.inputs(batch)
        # The token before an answer token, its own row's, predicts it.
        predictors_N = tokens.rows * batch["labels"].shape[1] + tokens.columns - 1
        head = self._tempered_head()
        if head is not None:
            hidden_BLD = head.hidden_states(model, inputs)
            return log_probs_after(hidden_BLD, predictors_N, tokens.targets, head)
        logits_BLV = model(**inputs, use_cache=False).logits
        logits_NV = logits_BLV.flatten(0, 1)[predictors_N].float() / self.temperature
        return -F.cross_entropy(logits_NV, tokens.targets, reduction="none")

    def _tempered_head(self) -> Head | None:
        if self.head is None or self.temperature == 1:
            return self.head
        # A bound on the logits comes before the temperature, which the head can't do.
        if self.head.softcap is not None:
            return None
        return replace(self.head, scale=self.head.scale / self.temperature)


def grpo_losses(
    log_probs_N: torch.Tensor,
    old_N: torch.Tensor,
    reference_N: torch.Tensor | None,
    advantages_N: torch.Tensor,
    settings: GrpoSettings,
) -> tuple[torch.Tensor, dict[str, MetricSum]]:
    """Return the loss of each answer token, and its metrics as means over tokens.

    Args:
        log_probs_N: Of the policy, with gradient.
        old_N: When the tokens were drawn, without gradient.
        reference_N: Of the model to stay near to; not read where `beta` is 0.
        advantages_N: Of each token's answer.
        settings: Clipping and the weight of the KL.

    Raises:
        ValueError: `beta` needs a reference, and there is none.

    Source:
        arXiv 2402.03300, equations 3 and 4 (the unbiased estimate of KL).
    """
    high = settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
    ratio_N = (log_probs_N - old_N).exp()
    clipped_N = ratio_N.clamp(1 - settings.epsilon, 1 + high)
    losses_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    is_cut_N = (ratio_N < 1 - settings.epsilon) & (advantages_N < 0)
    is_cut_N |= (ratio_N > 1 + high) & (advantages_N > 0)
    metrics = {"clip_ratio": mean_of(is_cut_N.to(losses_N.dtype))}
    if settings.beta:
        if reference_N is None:
            raise ValueError("beta needs the reference's log-probabilities")
        difference_N = reference_N - log_probs_N
        kl_N = difference_N.exp() - difference_N - 1
        losses_N = losses_N + settings.beta * kl_N
        metrics["kl"] = mean_of(kl_N)
    return losses_N, metrics


@dataclass(frozen=True, slots=True)
class GroupRelativePolicyOptimization:
    """The objective of `stage: grpo`; implements `Objective`.

    Attributes:
        settings: Clipping, KL, and what is divided by.
        policy: Computes the log-probabilities of a batch's answers.
        max_answer_tokens: What `dr_grpo` divides the tokens' sum of an answer by.
    """

    settings: GrpoSettings
    policy: AnswerPolicy
    max_answer_tokens: int = 1

    def weight(self, batch: Batch) -> torch.Tensor:
        """Return the number of answers; with `dapo`, of their tokens."""
        tokens = AnswerTokens.of(batch["labels"])
        counted = tokens.targets if self.settings.loss_type == "dapo" else tokens.starts
        return torch.tensor(float(len(counted)), device=counted.device)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Run the model on a batch of answers and sum their losses.

        Raises:
            ValueError: As `grpo_losses` and `AnswerPolicy.log_probs`.
        """
        tokens = AnswerTokens.of(batch["labels"])
        log_probs_N = self.policy.log_probs(model, batch, tokens)
        old_N, reference_N = (
            tokens.take(batch[name]) if name in batch else None
            for name in ("old_log_probs", "reference_log_probs")
        )
        losses_N, metrics = grpo_losses(
            log_probs_N,
            log_probs_N.detach() if old_N is None else old_N,
            reference_N,
            tokens.take(batch["advantages"]),
            self.settings,
        )
        lengths_A = tokens.lengths
        if self.settings.loss_type == "grpo":
            losses_N = losses_N / lengths_A[tokens.answers]
        elif self.settings.loss_type == "dr_grpo":
            losses_N = losses_N / self.max_answer_tokens
        metrics |= {
            name.removeprefix(REPORTED): mean_of(tokens.take(values_BL)[tokens.starts])
            for name, values_BL in batch.items()
            if name.startswith(REPORTED)
        }
        metrics["completions/mean_length"] = mean_of(lengths_A.to(losses_N.dtype))
        return LossSum(
            total=losses_N.sum(),
            weight=self.weight(batch),
            num_tokens=losses_N.new_tensor(len(losses_N)),
            metrics=metrics,
        )
