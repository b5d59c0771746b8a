"""Rows for preference stages: two ranked answers to a prompt, or one answer and a verdict on it.

In: a row of any format, by its layout. Out: a `Record` that a preference stage can use, or the
reason why it can't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from luthier.contracts.conversation import Message, Origin, Record
from luthier.corpus.answers import LABELS, SIDES
from luthier.corpus.bad_rows import RowError
from luthier.corpus.formats import layout_finder
from luthier.corpus.layouts import Layout, Row
from luthier.corpus.readers.source import Source
from luthier.corpus.unify import RowColumns, record_from_row

JudgedKind = Literal["pairs", "verdicts"]
"""pairs: `chosen` and `rejected` answers; verdicts: one answer and `label` (or `kto_tag`)."""


def judged_layout_finder(source: Source, kind: JudgedKind) -> Callable[[Row], Layout]:
    """Return what tells the layout of each row of a source.

    Args:
        source: Where the rows come from.
        kind: What the rows must hold; the finder raises `RowError` where a field of it is missing.
    """
    find = layout_finder(source, any_kind=True)
    declared = source.columns
    if kind == "pairs":
        needed = [[declared.get(side, side)] for side in SIDES]
    else:
        needed = [[declared["kto_tag"]] if "kto_tag" in declared else list(LABELS)]

    def find_judged(row: Row) -> Layout:
        missing = [names for names in needed if all(row.get(name) is None for name in names)]
        if missing:
            listed = " and ".join(" or ".join(names) for names in missing)
            what = f"the field {listed} is" if len(missing) == 1 else f"the fields {listed} are"
            found = ", ".join(row) or "none"
            raise RowError("missing_field", f"{what} missing (found: {found})")
        return find(row)

    return find_judged


def pair_from_row(
    row: Row, origin: Origin, *, layout: Layout, columns: RowColumns | None = None
) -> Record:
    """Return the record of a row that ranks two answers.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: What `judged_layout_finder` returned.
        columns: Columns for task and category.

    Raises:
        RowError: The row can't be read, ranks no answers, calls tools, or gives a turn a weight.
    """
    columns = columns or RowColumns()
    record = record_from_row(row, origin, layout=layout, columns=columns)
    if record.chosen is None or record.rejected is None:
        raise RowError("missing_field", "the row holds no chosen and rejected answers")
    _refuse_unusable(record, record.chosen, record.rejected)
    return _weighed(record, columns)


def verdict_from_row(
    row: Row, origin: Origin, *, layout: Layout, columns: RowColumns | None = None
) -> Record:
    """Return the record of a row that says whether its answer is wanted.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: What `judged_layout_finder` returned.
        columns: Columns for task and category.

    Raises:
        RowError: The row can't be read, its verdict is neither true nor false, it ranks two
            answers, calls tools, or gives a turn a weight.
    """
    columns = columns or RowColumns()
    record = record_from_row(row, origin, layout=layout, columns=columns)
    if record.chosen is not None:
        raise RowError(
            "preference_data",
            "the row ranks two answers, a verdict is on one",
            mend="Train on ranked answers with another stage, or write a row for each answer.",
        )
    if record.label is None:
        fields = " or ".join(LABELS)
        raise RowError("wrong_type", f"{fields} is neither true nor false")
    _refuse_unusable(record, record.messages[-1:])
    return _weighed(record, columns)


def _refuse_unusable(record: Record, *answers: Sequence[Message]) -> None:
    """Refuse what no template gets to see here, and weights that sums of log p can't carry."""
    turns = [*record.messages, *(turn for answer in answers for turn in answer)]
    if record.tools or any(turn.tool_calls for turn in turns):
        raise RowError("unsupported_field", "tools and calls of tools are not supported")
    for answer in answers:
        weight = next((turn.weight for turn in answer if turn.weight not in (0, 1)), None)
        if weight is not None:
            raise RowError(
                "unsupported_field",
                f"a turn of an answer has the weight {weight:g}: one that is judged counts whole "
                "(1) or not at all (0)",
            )


def _weighed(record: Record, columns: RowColumns) -> Record:
    weight = columns.task_weights.get(record.task, 1.0) if record.task else 1.0
    return record if weight == 1 else replace(record, weight=record.weight * weight)
