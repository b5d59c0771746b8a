"""Rows for a stage in which the model itself answers: prompts, and what answers are judged by.

In: a row of any format with a prompt. Out: a `Record` whose turns end with the user. The answer
that the row may hold is the reference; all fields go on to the reward functions.
"""

from __future__ import annotations

from collections.abc import Callable

from luthier.contracts.conversation import Message, Origin, Record
from luthier.contracts.question import Question
from luthier.corpus.bad_rows import RowError
from luthier.corpus.chat_row import read_own_answer, read_prompt
from luthier.corpus.formats import find_prompt_layout, layout_finder, unknown_format
from luthier.corpus.layouts import Layout, RecordLayout, Row, TextLayout
from luthier.corpus.prepared_row import prepared_record
from luthier.corpus.readers.source import Source
from luthier.corpus.turns import check_order
from luthier.corpus.unify import RowColumns, with_category


def prompt_layout_finder(source: Source) -> Callable[[Row], Layout]:
    """Return what tells the layout of each row of a source; an answer may be missing.

    Args:
        source: Where the rows come from.
    """
    find = layout_finder(source, any_kind=True)

    def find_prompt(row: Row) -> Layout:
        try:
            return find(row)
        except RowError:
            return find_prompt_layout(row)

    return find_prompt


def question_from_row(
    row: Row, origin: Origin, *, layout: Layout, columns: RowColumns | None = None
) -> Record:
    """Return the record of a row whose prompt the model is to answer.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: What `prompt_layout_finder` returned.
        columns: Columns for the split's category.

    Raises:
        RowError: The row holds no prompt, or its turns can't be put to a model.
    """
    if isinstance(layout, TextLayout):
        raise unknown_format(row, any_kind=True)
    if isinstance(layout, RecordLayout):
        record = prepared_record(row)
        origin, turns = record.origin, list(record.messages)
    else:
        turns = read_prompt(row, layout)
        if layout.answer is not None and row.get(layout.answer) is not None:
            turns = [*turns, *read_own_answer(row, layout)]
    turns, reference = _parted(turns)
    if any(turn.tool_calls for turn in turns) or row.get("tools"):
        raise RowError("unsupported_field", "tools and calls of tools are not supported")
    check_order(turns, ends_with="user")
    question = Question.of(turns[-1].content, row, reference)
    record = Record(origin, tuple(turns), question=question.to_json())
    return with_category(record, row, columns or RowColumns())


def _parted(turns: list[Message]) -> tuple[list[Message], str | None]:
    """Part the answer at the end of some turns, if there is one, from those before it."""
    if turns and turns[-1].role == "assistant":
        return turns[:-1], turns[-1].content
    return turns, None
