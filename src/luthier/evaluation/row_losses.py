"""What each row of a data set costs a model, in nats: perplexity per token and per byte.

In: prepared rows. Out: the loss of each, summed over its supervised tokens, each of which counts
once. Rows are laid end to end without padding where the model allows it. Bytes are those of the
text that the supervised tokens stand for, in UTF-8; the tokens that end a text have none. A
tokenizer with fewer, longer tokens has a higher perplexity per token of the same text, and not per
byte.

Shape suffixes: B rows of a batch, L tokens of a row, S segments, N supervised tokens, K sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from luthier.batches.cutting import split_batch
from luthier.batches.flat import build_collator
from luthier.batches.settings import BatchSettings
from luthier.batches.stream import evaluation_order
from luthier.contracts.rows import IGNORE_INDEX
from luthier.engine.memory import MicroBatches
from luthier.evaluation.metrics.score import FloatArray, Score
from luthier.evaluation.validation_loss import LARGEST_EXPONENT
from luthier.models.segments import packed_inputs
from luthier.objectives.causal_lm import token_log_probs
from luthier.objectives.sft import model_inputs

if TYPE_CHECKING:
    from luthier.contracts.training import Batch
    from luthier.objectives.head import Head


@dataclass(frozen=True, slots=True)
class RowLoss:
    """The loss of one row.

    Attributes:
        nats: Sum over its supervised tokens.
        num_tokens: How many they are.
        num_bytes: Bytes of the text that they stand for.
    """

    nats: float
    num_tokens: int
    num_bytes: int

    def __add__(self, other: RowLoss) -> RowLoss:
        """Join two parts of one text."""
        return RowLoss(
            self.nats + other.nats,
            self.num_tokens + other.num_tokens,
            self.num_bytes + other.num_bytes,
        )


@dataclass(frozen=True, slots=True)
class RowLosses:
    """Computes the loss of rows.

    Attributes:
        head: The head of the model (`find_head`): only supervised tokens go through it. None
            computes the model's own logits, of all tokens.
        device: Where the model is.
        is_packed: Whether rows are laid end to end; `check_packed` must have found nothing against
            it.
        pad_id: Fills rows up where they are not.
        batch_size: Rows of a batch; packed, as many tokens as the longest row has, so many times.
        progress: Told how many rows are done, and how many there are.
        micro_batches: Cuts batches where memory runs out.
    """

    head: Head | None
    device: torch.device
    is_packed: bool
    pad_id: int
    batch_size: int
    progress: Callable[[int, int], None] = lambda _done, _total: None
    micro_batches: MicroBatches = field(default_factory=lambda: MicroBatches(split_batch))

    def __call__(self, model: torch.nn.Module, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the loss of each row in nats, in their order.

        Args:
            model: A causal language model; goes back to the mode that it was in.
            rows: With `input_ids` and aligned `labels`.
        """
        settings = BatchSettings(
            packing="padding_free" if self.is_packed else False,
            per_device_eval_batch_size=self.batch_size,
        )
        collate = build_collator(settings, self.pad_id)
        lengths = [len(row["input_ids"]) for row in rows]
        losses = [0.0] * len(rows)
        was_training, num_done = model.training, 0
        model.eval()
        try:
            with torch.inference_mode():
                for numbers in evaluation_order(lengths, settings):
                    batch = collate([rows[number] for number in numbers])
                    found = self.micro_batches.retry(partial(self._of, model, batch), _nothing)
                    for number, nats in zip(numbers, found, strict=True):
                        losses[number] = nats
                    num_done += len(numbers)
                    self.progress(num_done, len(rows))
        finally:
            model.train(was_training)
        return losses

    def _of(self, model: torch.nn.Module, batch: Batch) -> list[float]:
        found: list[float] = []
        for part in self.micro_batches.cut([batch]):
            on_device = {name: tensor.to(self.device) for name, tensor in part.items()}
            log_probs_BL = self._log_probs(model, on_device)
            # Summed in double precision on the host: not every device has it.
            found += (-_by_row(log_probs_BL.cpu().double(), part)).tolist()
        return found

    def _log_probs(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        inputs = packed_inputs(batch) if "cu_seqlens" in batch else model_inputs(batch)
        labels_BL = batch["labels"]
        if self.head is not None:
            return token_log_probs(self.head.hidden_states(model, inputs), labels_BL, self.head)
        logits_BLV = model(**inputs, use_cache=False).logits
        targets_BL = labels_BL[:, 1:]
        supervised_BL = targets_BL != IGNORE_INDEX
        log_probs_BL = torch.zeros(labels_BL.shape, device=labels_BL.device)
        log_probs_BL[:, 1:][supervised_BL] = -F.cross_entropy(
            logits_BLV[:, :-1][supervised_BL].float(), targets_BL[supervised_BL], reduction="none"
        )
        return log_probs_BL


def _by_row(values_BL: torch.Tensor, batch: Batch) -> torch.Tensor:
    if "cu_seqlens" not in batch:
        return values_BL.sum(dim=1)
    ends_S = batch["cu_seqlens"].long()
    segments_L = torch.repeat_interleave(torch.arange(len(ends_S) - 1), ends_S.diff())
    nothing_S = values_BL.new_zeros(len(ends_S) - 1)
    return nothing_S.index_add(0, segments_L, values_BL[0])


def perplexities(losses: Sequence[RowLoss]) -> list[Score]:
    """Return the perplexity per token and, where the rows have bytes, per byte.

    Args:
        losses: Of N rows.
    """
    nats_N = np.asarray([loss.nats for loss in losses])
    scores: list[Score] = []
    for name, counts, how in (
        ("perplexity", [loss.num_tokens for loss in losses], "exp(nats / tokens)"),
        ("byte_perplexity", [loss.num_bytes for loss in losses], "exp(nats / bytes of UTF-8)"),
    ):
        statistics_NK = np.stack([nats_N, np.asarray(counts, dtype=np.float64)], axis=1)
        if statistics_NK[:, 1].sum():
            rows_N = _exp_ratio(statistics_NK)
            scores.append(Score(name, statistics_NK, _exp_ratio, rows_N, how, lower_is_better=True))
    return scores


def _exp_ratio(sums_BK: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore", invalid="ignore"):
        means_B = sums_BK[:, 0] / sums_BK[:, 1]
    return np.where(
        means_B > LARGEST_EXPONENT, np.inf, np.exp(np.minimum(means_B, LARGEST_EXPONENT))
    )


def _nothing() -> None:
    """Forget nothing: a try that failed has left nothing behind."""
