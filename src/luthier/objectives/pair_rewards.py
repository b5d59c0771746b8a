"""What a reward model gives both answers of each pair: one number, at the answer's last token.

In: a model and a batch of pairs in either layout of `batches/pairs.py`. Out: rewards in float32.
Which token is the last is told by the batch, never by a look for the pad token, and of all hidden
states only those go through the head.

Shape suffixes: P pairs, B = 2P rows, L tokens of a row, A = 2P answers: the chosen and the rejected
one of each pair in turn, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from luthier.contracts.rows import IGNORE_INDEX
from luthier.models.compiled_layers import decoder_of, without_adapters
from luthier.models.reward_model import SCORE
from luthier.models.shared_prefixes import shared_prefix_inputs
from luthier.objectives.head import Head, head_parts
from luthier.objectives.reward import PairRewards
from luthier.objectives.sft import model_inputs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch


@dataclass(frozen=True, slots=True)
class RewardScorer:
    """Scores pairs of ranked answers by a reward model; a `ScoreRewards`.

    Attributes:
        head: The head of the model that is trained (`reward_head`).
    """

    head: Head

    def __call__(self, model: torch.nn.Module, batch: Batch) -> PairRewards:
        """Run the model on a batch of pairs; see `pair_rewards`."""
        return pair_rewards(self.head, model, batch)


def reward_head(model: Any) -> Head:
    """Return a reward model's body and head.

    Args:
        model: As `load_model` returns it for rewards, wrapped by peft or not.
    """
    return Head(model, decoder_of(model), getattr(without_adapters(model), SCORE))


def pair_rewards(head: Head, model: torch.nn.Module, batch: Batch) -> PairRewards:
    """Run a reward model on a batch of pairs.

    Args:
        head: The model's, as `reward_head` returned it.
        model: For a shared batch `check_shared_prefixes` must find nothing against it.
        batch: As `shared_pair_collate` or `separate_pair_collate` made it.

    Returns:
        Rewards in float32, with gradient, also under autocast: the difference of two rewards is
        what is learned, and 16 bits would round it.

    Raises:
        ValueError: The model isn't the one that the head was found in, or the pairs don't lie as
            `shared_prefix_inputs` needs them.
    """
    if "pairs" in batch:
        inputs, places_A = shared_prefix_inputs(batch), batch["pairs"][:, 2:].flatten() - 1
    else:
        inputs, places_A = model_inputs(batch), _last_tokens(batch["attention_mask"])
    hidden_BLD = head.hidden_states(model, inputs)
    hidden_AD = hidden_BLD.flatten(0, 1)[places_A].float()
    with torch.autocast(hidden_AD.device.type, enabled=False):
        parts = head_parts(head.projection, hidden_AD)
        bias = None if parts.bias is None else parts.bias.float()
        rewards_A = F.linear(hidden_AD, parts.weight.float(), bias)[:, 0]
    return PairRewards(
        chosen=rewards_A[0::2],
        rejected=rewards_A[1::2],
        num_tokens=(batch["labels"] != IGNORE_INDEX).sum(),
        margins=batch.get("margin"),
    )


def _last_tokens(attention_mask_BL: torch.Tensor) -> torch.Tensor:
    """Return where the last token of each row stands, counted over all positions."""
    num_rows, num_columns = attention_mask_BL.shape
    starts_B = torch.arange(num_rows, device=attention_mask_BL.device) * num_columns
    return starts_B + attention_mask_BL.sum(1) - 1
