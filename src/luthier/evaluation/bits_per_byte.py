"""What a model's loss is for each byte of text: comparable between models of other tokenizers.

In: an evaluator, and what its validation rows hold. Out: its metrics, and the same loss over the
bytes of the text in place of the tokens. A tokenizer with fewer, longer tokens has a higher loss
for each token of the same text, and not for each byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from luthier.contracts.training import Evaluator
from luthier.evaluation.validation_loss import LARGEST_EXPONENT

if TYPE_CHECKING:
    import datasets
    import torch


@dataclass(frozen=True, slots=True)
class BitsPerByte:
    """Divides an evaluator's loss by bytes too; implements `Evaluator`.

    The ends of documents carry loss and have no bytes: to know where a text ends is part of it.

    Attributes:
        evaluator: Measures the mean loss of the supervised tokens (`eval_loss`), in nats.
        tokens: Supervised tokens, each by its weight.
        text_bytes: Bytes of the text that they stand for, each by its weight.
    """

    evaluator: Evaluator
    tokens: float
    text_bytes: float

    @classmethod
    def of(cls, evaluator: Evaluator, rows: datasets.Dataset) -> BitsPerByte:
        """Count the rows that the evaluator looks at.

        Args:
            evaluator: Measures all of the rows.
            rows: Prepared rows of documents, with `text_bytes`.
        """
        tokens = np.asarray(rows["num_supervised"][:], dtype=np.float64)
        text_bytes = np.asarray(rows["text_bytes"][:], dtype=np.float64)
        if "loss_weights" in rows.column_names:
            # All supervised tokens of a document weigh the same.
            weights = np.asarray([max(of_row) for of_row in rows["loss_weights"]])
            tokens, text_bytes = tokens * weights, text_bytes * weights
        return cls(evaluator, float(tokens.sum()), float(text_bytes.sum()))

    def __call__(self, model: torch.nn.Module) -> dict[str, float]:
        """Return the evaluator's metrics, `eval_bits_per_byte` and `eval_byte_perplexity`.

        Raises:
            StopAskedError: As the evaluator.
        """
        metrics = self.evaluator(model)
        nats = metrics["eval_loss"] * self.tokens
        nats = nats / self.text_bytes if self.text_bytes else math.nan
        return metrics | {
            "eval_bits_per_byte": nats / math.log(2),
            "eval_byte_perplexity": math.inf if nats > LARGEST_EXPONENT else math.exp(nats),
        }
