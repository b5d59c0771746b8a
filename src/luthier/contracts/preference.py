"""What objectives that compare or judge answers are handed, however it was computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PairLogProbs:
    """Log-probabilities of the answers of P pairs, in float32 or wider.

    Attributes:
        chosen: (P,) sum of log p over the chosen answer's tokens, with gradient.
        rejected: (P,) the same of the rejected answer.
        chosen_tokens: (P,) number of answer tokens.
        rejected_tokens: (P,) the same of the rejected answer.
        chosen_shared: (P,) sum over the first n tokens of the chosen answer alone, where n is the
            number of tokens of the pair's shorter answer. None where `ld_alpha` is not set.
        rejected_shared: (P,) the same of the rejected answer.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    chosen_shared: Tensor | None = None
    rejected_shared: Tensor | None = None


@dataclass(frozen=True, slots=True)
class AnswerLogProbs:
    """Log-probabilities of the answers of R rows, each judged by itself, in float32 or wider.

    Attributes:
        answer: (R,) sum of log p over the row's answer, with gradient.
        answer_tokens: (R,) number of answer tokens.
        mismatched: (M,) sums of log p over answers that stand after another row's prompt, without
            gradient: what says how far the policy is from its reference on answers that were not
            given to these prompts. M is at least 1; the rows' answers, each moved on by one row,
            make M = R.
    """

    answer: Tensor
    answer_tokens: Tensor
    mismatched: Tensor
