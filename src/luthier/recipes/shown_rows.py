"""Prepared rows as text for people: cut into pieces, no character torn apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.contracts.rows import IGNORE_INDEX

_TORN = "\ufffd"
"""What a tokenizer decodes a part of a character to."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of tokens of one kind, as text.

    Attributes:
        text: What the tokens stand for.
        taught: Whether they carry loss.
        special: Whether it is a control token of the tokenizer.
        num_tokens: How many they are.
        loss: The mean loss of its tokens under the model, in nats, where it was computed.
    """

    text: str
    taught: bool
    special: bool
    num_tokens: int
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class ShownRow:
    """One training row, or one answer of a row that judges, in pieces.

    Attributes:
        judgement: `better`, `worse`, `wanted` or `unwanted`; None where nothing is judged.
    """

    origin: str
    pieces: tuple[Piece, ...]
    judgement: str | None = None

    @property
    def num_tokens(self) -> int:
        """Length of the row."""
        return sum(piece.num_tokens for piece in self.pieces)

    @property
    def num_taught(self) -> int:
        """Tokens that carry loss."""
        return sum(piece.num_tokens for piece in self.pieces if piece.taught)


def answers_of(row: Mapping[str, Any]) -> list[tuple[str | None, dict[str, Any]]]:
    """Return a prepared row's answers with the judgement on each, as rows with a prompt and one.

    Args:
        row: A prepared row; one that judges nothing is returned as it is.
    """
    if "chosen_length" not in row:
        return [(None, dict(row))]
    prompt = int(row["prompt_length"])
    end = prompt + int(row["chosen_length"])
    chosen, rejected = ({"origin": row["origin"]} for _ in range(2))
    for name in ("input_ids", "labels"):
        chosen[name] = row[name][:end]
        rejected[name] = row[name][:prompt] + row[name][end:]
    if row.get("desirable") is None:
        return [("better", chosen), ("worse", rejected)]
    # Behind it stands the answer to another prompt, on which there is no verdict.
    return [("wanted" if row["desirable"] else "unwanted", chosen)]


def show_row(
    row: dict[str, Any],
    tokenizer: Any,
    losses: Sequence[float | None] | None = None,
    judgement: str | None = None,
) -> ShownRow:
    """Cut a prepared row into pieces of one kind; with losses, taught text into its tokens.

    Args:
        row: A prepared row.
        tokenizer: That made it.
        losses: The loss of each token, None where it is not taught.
        judgement: On its answer.
    """
    # The named ones alone would leave out Llama 3's <|start_header_id|> and its like.
    control = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control |= set(tokenizer.all_special_ids)
    ids = row["input_ids"]
    kinds = [
        (label != IGNORE_INDEX, token in control)
        for token, label in zip(ids, row["labels"], strict=True)
    ]
    pieces: list[Piece] = []
    start = 0
    for end in range(1, len(kinds) + 1):
        ends = end == len(kinds) or kinds[end] != kinds[start]
        if not ends and (losses is None or losses[start] is None):
            continue
        text = tokenizer.decode(ids[start:end], skip_special_tokens=False)
        if ends or _TORN not in text:
            known = [loss for loss in (losses or [])[start:end] if loss is not None]
            mean = sum(known) / len(known) if known else None
            pieces.append(Piece(text, *kinds[start], end - start, mean))
            start = end
    return ShownRow(str(row["origin"]), tuple(pieces), judgement)
