"""Pairs of answers in, one batch out: each prompt computed once, or both answers by themselves.

In: `PreparedPair`s. Out, for models whose rows can be packed, one row of all pairs end to end; for
others two padded rows a pair. Both say the same, and `objectives/pair_log_probs.py` takes either.
Shape suffixes: P pairs, T tokens of all pairs, B = 2P rows, L the longest row of the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from luthier.batches.collate import Collate, causal_lm_collate
from luthier.batches.settings import BatchSettings
from luthier.contracts.rows import IGNORE_INDEX

_OF_PAIRS = {
    "weight": torch.float32,
    "desirable": torch.bool,
    "margin": torch.float32,
    "reference_chosen": torch.float32,
    "reference_rejected": torch.float32,
    "reference_chosen_shared": torch.float32,
    "reference_rejected_shared": torch.float32,
}
"""Optional fields with one value a pair, and their types in a batch."""


def shared_pair_collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Lay pairs end to end, each as prompt | chosen | rejected.

    Args:
        batch: Pairs as `contracts/rows.py` has them. Lists or numpy arrays.

    Returns:
        `input_ids_1T`, `labels_1T`, `position_ids_1T` (int64; those of the rejected answer go on
        from the prompt), `pairs_P4` (int32: start, end of the prompt, of the chosen answer, and of
        the pair), `num_rows` (int64 without dimension: P), and where the pairs have them `weight`,
        `desirable`, `margin` and the reference's log-probabilities, all (P,).

    Raises:
        ValueError: The batch is empty, lengths don't fit, or a field is missing in some pairs.
    """
    bounds = [_bounds(row) for row in batch]
    of_pairs = _of_pairs(batch)
    positions = [
        np.concatenate([np.arange(chosen), np.arange(prompt, prompt + end - chosen)])
        for prompt, chosen, end in bounds
    ]
    table, start = np.empty((len(batch), 4), np.int32), 0
    for number, (prompt, chosen, end) in enumerate(bounds):
        table[number] = start, start + prompt, start + chosen, start + end
        start += end
    return {
        "input_ids": _as_row([row["input_ids"] for row in batch]),
        "labels": _as_row([row["labels"] for row in batch]),
        "position_ids": _as_row(positions),
        "pairs": torch.from_numpy(table),
        "num_rows": torch.tensor(len(batch)),
        **of_pairs,
    }


def separate_pair_collate(
    batch: Sequence[Mapping[str, Any]], pad_id: int
) -> dict[str, torch.Tensor]:
    """Pad prompt + chosen and prompt + rejected of each pair, as two rows one after the other.

    Args:
        batch: As for `shared_pair_collate`.
        pad_id: Fills `input_ids`.

    Returns:
        `input_ids_BL`, `labels_BL`, `attention_mask_BL` as `causal_lm_collate` makes them, and
        `num_rows` and the fields of pairs as in `shared_pair_collate`.

    Raises:
        ValueError: As `shared_pair_collate`.
    """
    rows: list[dict[str, Any]] = []
    for row in batch:
        prompt, chosen, _ = _bounds(row)
        parts = {name: np.asarray(row[name]) for name in ("input_ids", "labels")}
        rows.append({name: values[:chosen] for name, values in parts.items()})
        rows.append(
            {
                name: np.concatenate([values[:prompt], values[chosen:]])
                for name, values in parts.items()
            }
        )
    of_pairs = _of_pairs(batch)
    return {**causal_lm_collate(rows, pad_id), "num_rows": torch.tensor(len(batch)), **of_pairs}


@dataclass(frozen=True, slots=True)
class SharedPairCollator:
    """`shared_pair_collate` as an object that loader workers can be sent."""

    def __call__(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Lay one batch end to end; see `shared_pair_collate`."""
        return shared_pair_collate(batch)


@dataclass(frozen=True, slots=True)
class SeparatePairCollator:
    """`separate_pair_collate` with its pad id, as an object that loader workers can be sent."""

    pad_id: int

    def __call__(self, batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad one batch; see `separate_pair_collate`."""
        return separate_pair_collate(batch, self.pad_id)


def build_pair_collator(settings: BatchSettings, pad_id: int) -> Collate:
    """Return what makes batches of pairs, for training and evaluation alike.

    Args:
        settings: Whether rows are packed; then the answers of a pair share its prompt.
        pad_id: Fills `input_ids` where they are not.
    """
    return SharedPairCollator() if settings.is_packed else SeparatePairCollator(pad_id)


def pair_capacity(cutoff_len: int) -> int:
    """Return the tokens that a row of packed pairs may hold.

    `cutoff_len` bounds what a model sees at once, a prompt and one answer. With the other answer a
    pair has up to twice as many.
    """
    return 2 * cutoff_len


def _bounds(row: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return where prompt, chosen and rejected answer of a pair end."""
    prompt, num_tokens = int(row["prompt_length"]), len(row["input_ids"])
    chosen = prompt + int(row["chosen_length"])
    if not 0 <= prompt < chosen < num_tokens or len(row["labels"]) != num_tokens:
        raise ValueError(
            f"a pair of {num_tokens} tokens and {len(row['labels'])} labels can't have a prompt of "
            f"{prompt} and a chosen answer of {chosen - prompt}: each answer needs a token"
        )
    labels = np.asarray(row["labels"])
    assert (labels[:prompt] == IGNORE_INDEX).all(), "the prompt of a pair carries no labels"
    is_predicted = prompt > 0 or labels[0] == labels[chosen] == IGNORE_INDEX
    assert is_predicted, "without a prompt no position predicts the first token of an answer"
    return prompt, chosen, num_tokens


def _of_pairs(batch: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    if not batch:
        raise ValueError("a batch needs at least one pair")
    found: dict[str, torch.Tensor] = {}
    for name, dtype in _OF_PAIRS.items():
        num_with = sum(name in row for row in batch)
        if num_with not in (0, len(batch)):
            raise ValueError(f"all pairs of a batch have {name}, or none has")
        if num_with:
            found[name] = torch.tensor([row[name] for row in batch], dtype=dtype)
    return found


def _as_row(parts: Sequence[Any]) -> torch.Tensor:
    # Always a copy: what Arrow hands out is read-only, and torch can't be told so.
    joined = np.concatenate([np.asarray(part) for part in parts], dtype=np.int64, casting="unsafe")
    return torch.from_numpy(joined)[None]
