"""Rows on their way to disk: small arrays in memory, Arrow tables in the end.

In: rendered rows. Out: a `datasets.Dataset` of the columns that `contracts/rows.py` describes,
with each row's length, count of supervised tokens and origin.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from luthier.contracts.rows import IGNORE_INDEX
from luthier.dataset.rendering import Rendered

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

ROWS_PER_CHUNK = 10_000
"""Arrow's list offsets have 32 bits, so a chunk may hold no more than 2**31 tokens."""

HISTOGRAM_EDGES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)


@dataclass(frozen=True, slots=True)
class Pair:
    """What a row says beside its tokens, where it holds two answers (`contracts/rows.py`).

    Attributes:
        prompt_length: Tokens of the prompt that both share.
        chosen_length: Tokens of the chosen answer, or of the one that is judged.
        weight: Scales the loss of the pair.
        desirable: The verdict on the judged answer; None where two are ranked.
        margin: By how much the chosen answer is better, where the row says so.
    """

    prompt_length: int
    chosen_length: int
    weight: float = 1.0
    desirable: bool | None = None
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One prepared row of length L.

    Attributes:
        input_ids: Token ids, int32.
        labels: The ids where supervised, else -100; int32.
        loss_weights: float32, or None where all are 1.
        origin: File and line that it comes from.
        text_bytes: Bytes of the text that its supervised tokens stand for, in UTF-8; None where
            nothing is divided by them.
        pair: How a row of two answers is divided; None for a row of one. All rows of a table have
            it or none.
        question: What answers to a prompt are judged by (`contracts/question.py`), JSON as text;
            None for a row that holds its answer. All rows of a table have one or none.
    """

    input_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    loss_weights: npt.NDArray[np.float32] | None
    origin: str
    pair: Pair | None = None
    text_bytes: int | None = None
    question: str | None = None

    @classmethod
    def of(cls, rendered: Rendered) -> Row:
        """Pack a rendered row: python's integers take nine times the room."""
        input_ids = np.asarray(rendered.input_ids, dtype=np.int32)
        weights = np.asarray(rendered.loss_weights, dtype=np.float32)
        supervised = weights > 0
        labels = np.where(supervised, input_ids, np.int32(IGNORE_INDEX))
        is_plain = bool((weights[supervised] == 1).all())
        origin = str(rendered.transcript.conversation.origin)
        return cls(input_ids, labels, None if is_plain else weights, origin)

    def num_supervised(self) -> int:
        """Return how many tokens carry loss."""
        return int((self.labels != IGNORE_INDEX).sum())

    @property
    def is_weighted(self) -> bool:
        """Whether any weight of it is another than 1."""
        return self.loss_weights is not None if self.pair is None else self.pair.weight != 1

    def weights(self) -> npt.NDArray[np.float32]:
        """Return the loss weights, written out."""
        if self.loss_weights is not None:
            return self.loss_weights
        return (self.labels != IGNORE_INDEX).astype(np.float32)

    def num_bytes(self) -> int:
        """Return about how much room it takes on disk."""
        texts = len(self.origin) + len(self.question or "")
        return 12 * len(self.input_ids) + texts + 16


def to_dataset(rows: Sequence[Row], *, with_weights: bool) -> datasets.Dataset:
    """Return rows as a data set in memory.

    Args:
        rows: In the order in which they are to stand.
        with_weights: Write the column `loss_weights`; of pairs, `weight`.
    """
    import datasets
    import pyarrow as pa

    chunks = [
        _table(rows[start : start + ROWS_PER_CHUNK], with_weights)
        for start in range(0, max(len(rows), 1), ROWS_PER_CHUNK)
    ]
    table = pa.concat_tables(chunks)
    return datasets.Dataset(table, fingerprint=_fingerprint(table))


def describe(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the figures of one split, for the manifest.

    Returns:
        Counts of rows, tokens, supervised tokens and, where rows have them, bytes of their text;
        the longest row; how many rows have up to 32, 64, ... tokens (`length_histogram`: pairs of
        upper edge and count); and of answers with a verdict how many are wanted (`desirable`).
    """
    lengths: list[int] = []
    text_bytes: list[int] = []
    verdicts: list[bool] = []
    num_supervised = 0
    for row in rows:
        lengths.append(len(row.input_ids))
        num_supervised += row.num_supervised()
        if row.text_bytes is not None:
            text_bytes.append(row.text_bytes)
        if row.pair is not None and row.pair.desirable is not None:
            verdicts.append(row.pair.desirable)
    bins = np.bincount(np.searchsorted(HISTOGRAM_EDGES, lengths), minlength=1)
    edges = [*HISTOGRAM_EDGES, max(lengths, default=0)]
    return {
        "rows": len(lengths),
        "tokens": sum(lengths),
        "supervised_tokens": num_supervised,
        **({"text_bytes": sum(text_bytes)} if text_bytes else {}),
        "max_length": max(lengths, default=0),
        "length_histogram": [
            [int(edge), int(count)] for edge, count in zip(edges, bins, strict=False) if count
        ],
        **({"desirable": sum(verdicts)} if verdicts else {}),
    }


def _fingerprint(table: pa.Table) -> str:
    """Return a hash of the values; the one that `datasets` makes pickles the table first."""
    digest = hashlib.sha256(str(table.schema).encode())
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in filter(None, chunk.buffers()):
                digest.update(buffer)
    return digest.hexdigest()[:16]


def _table(rows: Sequence[Row], with_weights: bool) -> pa.Table:
    import pyarrow as pa

    lengths = np.asarray([len(row.input_ids) for row in rows], dtype=np.int32)
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)])
    columns: dict[str, Any] = {
        "input_ids": _lists(offsets, [row.input_ids for row in rows], np.int32),
        "labels": _lists(offsets, [row.labels for row in rows], np.int32),
    }
    pairs = [row.pair for row in rows if row.pair is not None]
    columns |= _of_pairs(pairs, with_weights)
    if with_weights and not pairs:
        columns["loss_weights"] = _lists(offsets, [row.weights() for row in rows], np.float32)
    columns["length"] = pa.array(lengths)
    supervised = np.asarray([row.num_supervised() for row in rows], dtype=np.int32)
    columns["num_supervised"] = pa.array(supervised)
    if rows and rows[0].text_bytes is not None:
        columns["text_bytes"] = pa.array([row.text_bytes for row in rows], pa.int32())
    if rows and rows[0].question is not None:
        columns["question"] = pa.array([row.question for row in rows], pa.string())
    columns["origin"] = pa.array([row.origin for row in rows], pa.string())
    return pa.table(columns)


def _of_pairs(pairs: Sequence[Pair], with_weights: bool) -> dict[str, Any]:
    import pyarrow as pa

    if not pairs:
        return {}
    columns = {
        "prompt_length": pa.array([pair.prompt_length for pair in pairs], pa.int32()),
        "chosen_length": pa.array([pair.chosen_length for pair in pairs], pa.int32()),
    }
    if with_weights:
        columns["weight"] = pa.array([pair.weight for pair in pairs], pa.float32())
    if pairs[0].desirable is not None:
        columns["desirable"] = pa.array([pair.desirable for pair in pairs], pa.bool_())
    if any(pair.margin is not None for pair in pairs):
        columns["margin"] = pa.array([pair.margin or 0.0 for pair in pairs], pa.float32())
    return columns


def _lists(
    offsets: npt.NDArray[np.int32], parts: Sequence[npt.NDArray[Any]], dtype: type[np.generic]
) -> pa.ListArray:
    import pyarrow as pa

    values = np.concatenate([np.zeros(0, dtype), *parts])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
