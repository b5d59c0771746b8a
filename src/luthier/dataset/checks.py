"""The data doctor: what is wrong with prepared rows although nothing failed.

In: prepared data sets, and the remarks that rendering left. Out: warnings with counts and the
first origins. It reads the rows as they lie on disk and trusts nothing that made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from luthier.contracts.notice import Notice
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.units import format_share
from luthier.dataset.transcript import Remark

if TYPE_CHECKING:
    import datasets

ROWS_PER_BATCH = 1_000
NUM_ORIGINS = 3
NUM_FIELDS = 10

REMARKS: Mapping[Remark, str] = {
    "turn_by_turn": "are written as one row for each answer, because the template rewrites "
    "earlier turns once new ones follow, or their tokens grow together with the next ones",
    "prompt_differs": "hold answers that the template writes otherwise than its generation prompt "
    "begins them (often with <think>): training shows the prompt without that beginning",
    "marks_ignored": "hold answers without the template's {% generation %} marks: all of the "
    "answer is taught",
    "answer_rewritten": "hold answers that the template changes (thinking templates drop "
    "thoughts): only what it writes is taught",
    "control_tokens": "spell control tokens in a message or a document: they become control "
    "tokens, as they would at inference",
}
"""What each remark says of the rows that carry it."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows laid end to end: row r stands at [first[r], first[r] + length[r])."""

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    origins: list[str]

    def count(self, hits: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return how many tokens of each row are hits."""
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(hits, dtype=np.int64)])
        return sums[self.first + self.lengths] - sums[self.first]


def check_rows(
    rows: datasets.Dataset,
    bos: int | None,
    ends: Sequence[int],
    *,
    num_cut: int = 0,
    may_be_empty: bool = False,
) -> list[Notice]:
    """Look for rows with two BOS, without an end token in the mask, and with an empty mask.

    Args:
        rows: One prepared split.
        bos: The id that begins a text, or None.
        ends: Ids that end an answer or a document.
        num_cut: Rows that end before their text does, at `cutoff_len`; that many may lack the end
            token.
        may_be_empty: Whether rows may teach nothing: prompts alone have no mask.

    Returns:
        A warning for each thing found.
    """
    found: dict[str, list[str]] = {"double_bos": [], "no_end_token": [], "empty_mask": []}
    for batch in _batches(rows):
        is_taught = batch.labels != IGNORE_INDEX
        num_taught = batch.count(is_taught)
        num_ends = batch.count(is_taught & np.isin(batch.labels, ends))
        two = np.flatnonzero(batch.lengths >= 2)
        if bos is not None:
            starts = batch.first[two]
            twice = (batch.ids[starts] == bos) & (batch.ids[starts + 1] == bos)
            found["double_bos"] += [batch.origins[i] for i in two[twice]]
        lacking = np.flatnonzero((num_ends == 0) & (num_taught > 0))
        found["no_end_token"] += [batch.origins[i] for i in lacking]
        found["empty_mask"] += [batch.origins[i] for i in np.flatnonzero(num_taught == 0)]
    if may_be_empty:
        found["empty_mask"] = []
    if len(found["no_end_token"]) <= num_cut:
        found["no_end_token"] = []
    clauses = {
        "double_bos": "begin with two BOS tokens: the template writes one and the text another",
        "no_end_token": "teach no end token: the model would not learn to stop",
        "empty_mask": "have no token to learn from",
    }
    return [
        _warning(check, clauses[check], origins, len(rows))
        for check, origins in found.items()
        if origins
    ]


def remark_notices(remarks: Mapping[Remark, Sequence[str]], num_rows: int) -> list[Notice]:
    """Say once for the data set what rendering remarked on single rows.

    Args:
        remarks: For each remark the origins of the rows that carry it.
        num_rows: Rows in all.
    """
    return [
        _warning(remark, clause, remarks[remark], num_rows)
        for remark, clause in REMARKS.items()
        if remarks.get(remark)
    ]


def unused_notices(unused: Counter[str], num_rows: int) -> list[Notice]:
    """Say which fields of the rows are passed over: one of them may be a slip of the pen.

    Args:
        unused: For each field, how many rows have it filled.
        num_rows: Rows that were read.
    """
    if not unused:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in unused.most_common(NUM_FIELDS))
    rest = len(unused) - NUM_FIELDS
    more = f", and {rest} more" if rest > 0 else ""
    text = f"of {num_rows} rows, nothing was read from these fields: {named}{more}"
    return [Notice(setting="unused_fields", asked="", used="", reason=text)]


def overlap_notices(origins: Sequence[str], num_val: int) -> list[Notice]:
    """Warn of validation conversations that stand in the training data.

    Args:
        origins: Where they stand in the validation data.
        num_val: Validation conversations in all.
    """
    if not origins:
        return []
    clause = "of the validation data stand in the training data too: their loss measures memory"
    return [_warning("train_val_overlap", clause, origins, num_val)]


def _warning(check: str, clause: str, origins: Sequence[str], num_rows: int) -> Notice:
    first = ", ".join(origins[:NUM_ORIGINS]) + (", ..." if len(origins) > NUM_ORIGINS else "")
    share = format_share(len(origins), num_rows)
    text = f"{len(origins)} of {num_rows} rows ({share}) {clause} ({first})"
    return Notice(setting=check, asked="", used="", reason=text)


def _batches(rows: datasets.Dataset) -> Iterator[_Batch]:
    tables = rows.with_format("arrow").iter(batch_size=ROWS_PER_BATCH)
    for table in cast(Iterator[Any], tables):
        ids, lengths = _flat(table, "input_ids")
        labels, _ = _flat(table, "labels")
        first = np.cumsum(lengths) - lengths
        yield _Batch(ids, labels, first, lengths, table.column("origin").to_pylist())


def _flat(table: Any, column: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    lists = table.column(column).combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return values, lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
