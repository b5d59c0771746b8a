"""How probable a model finds both answers of each pair: what preference objectives are made of.

In: a model and a batch of pairs in either layout of `batches/pairs.py`. Out: sums of
log-probabilities over the tokens of each answer. Only these go through the head, and the prompts of
a shared batch are computed once.

Shape suffixes: P pairs, T tokens of all pairs, B = 2P rows, L tokens of a row, N answer tokens,
A = 2P answers: the chosen and the rejected one of each pair in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from luthier.contracts.preference import PairLogProbs
from luthier.contracts.rows import IGNORE_INDEX
from luthier.models.shared_prefixes import shared_prefix_inputs
from luthier.objectives.causal_lm import log_probs_after
from luthier.objectives.sft import model_inputs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head


def pair_log_probs(head: Head | None, model: torch.nn.Module, batch: Batch) -> PairLogProbs:
    """Run a model on a batch of pairs and sum the log-probabilities of each answer.

    Args:
        head: The head of the model (`find_head`); None computes the model's own logits, of all
            tokens.
        model: A causal language model. For a shared batch `check_shared_prefixes` must find nothing
            against it.
        batch: As `shared_pair_collate` or `separate_pair_collate` made it.

    Returns:
        Sums in float32, with gradient, over all labelled tokens and over as many as the pair's
        shorter answer has; the counts (int64) are of all.

    Raises:
        ValueError: The model isn't the one that the head was found in, or the pairs don't lie as
            `shared_prefix_inputs` needs them.
    """
    if "pairs" in batch:
        inputs, tokens = shared_prefix_inputs(batch), _shared_tokens(batch)
        num_answers = 2 * len(batch["pairs"])
    else:
        inputs, tokens = model_inputs(batch), _separate_tokens(batch)
        num_answers = len(batch["labels"])
    log_probs_N = _log_probs(head, model, inputs, tokens)
    counts_A = torch.bincount(tokens.answers, minlength=num_answers)
    nothing_A = log_probs_N.new_zeros(num_answers)
    sums_A = nothing_A.index_add(0, tokens.answers, log_probs_N)
    of_shared_N = log_probs_N * _is_shared(tokens, counts_A)
    shared_A = nothing_A.index_add(0, tokens.answers, of_shared_N)
    return PairLogProbs(
        chosen=sums_A[0::2],
        rejected=sums_A[1::2],
        chosen_tokens=counts_A[0::2],
        rejected_tokens=counts_A[1::2],
        chosen_shared=shared_A[0::2],
        rejected_shared=shared_A[1::2],
    )


@dataclass(frozen=True, slots=True)
class _AnswerTokens:
    """The labelled tokens of a batch, answer by answer.

    Attributes:
        predictors: (N,) the position that predicts each token, counted over all positions.
        targets: (N,) the tokens.
        answers: (N,) which answer each belongs to; never falls.
    """

    predictors: torch.Tensor
    targets: torch.Tensor
    answers: torch.Tensor


def _shared_tokens(batch: Batch) -> _AnswerTokens:
    labels_T, pairs_P4 = batch["labels"][0], batch["pairs"].long()
    predictors_T = torch.arange(-1, len(labels_T) - 1, device=labels_T.device)
    # What stands before the first token of a rejected answer is the chosen answer's end.
    predictors_T[pairs_P4[:, 2]] = pairs_P4[:, 1] - 1
    places_N = (labels_T != IGNORE_INDEX).nonzero().flatten()
    ends_A = pairs_P4[:, 2:].flatten()
    answers_N = torch.bucketize(places_N, ends_A, right=True)
    return _AnswerTokens(predictors_T[places_N], labels_T[places_N], answers_N)


def _separate_tokens(batch: Batch) -> _AnswerTokens:
    labels_BL = batch["labels"]
    rows_N, columns_N = (labels_BL != IGNORE_INDEX).nonzero().unbind(1)
    predictors_N = rows_N * labels_BL.shape[1] + columns_N - 1
    return _AnswerTokens(predictors_N, labels_BL[rows_N, columns_N], rows_N)


def _log_probs(
    head: Head | None, model: torch.nn.Module, inputs: Mapping[str, Any], tokens: _AnswerTokens
) -> torch.Tensor:
    if head is not None:
        hidden_BLD = head.hidden_states(model, inputs)
        return log_probs_after(hidden_BLD, tokens.predictors, tokens.targets, head)
    logits_BLV = model(**inputs, use_cache=False).logits
    logits_NV = logits_BLV.flatten(0, 1)[tokens.predictors].float()
    return -F.cross_entropy(logits_NV, tokens.targets, reduction="none")


def _is_shared(tokens: _AnswerTokens, counts_A: torch.Tensor) -> torch.Tensor:
    """Return whether each token stands within the length of the shorter answer of its pair."""
    starts_A = counts_A.cumsum(0) - counts_A
    places_N = torch.arange(len(tokens.answers), device=counts_A.device)
    ranks_N = places_N - starts_A[tokens.answers]
    shorter_P = counts_A.view(-1, 2).amin(1)
    return ranks_N < shorter_P[tokens.answers // 2]
