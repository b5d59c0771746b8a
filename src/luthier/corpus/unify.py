"""One row of any known format, as one record.

In: a row as the reader found it. Out: a `Record` of any kind, a `Conversation` or a document (for
training) or the turns of a prompt (for generation). A row is taken as it is or refused with a
reason; it is never mended in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.corpus.answers import has_sides, read_sides, read_verdict, refuse_preference
from luthier.corpus.bad_rows import RowError, kind_of
from luthier.corpus.chat_row import (
    missing_field,
    read_own_answer,
    read_prompt,
    refuse_filled,
)
from luthier.corpus.formats import (
    find_layout,
    find_prompt_layout,
    find_record_layout,
    no_document,
    unknown_format,
)
from luthier.corpus.layouts import (
    ChatLayout,
    Layout,
    RecordLayout,
    Row,
    TextLayout,
    TurnsLayout,
)
from luthier.corpus.prepared_row import prepared_record
from luthier.corpus.readers.source import Source
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.tool_calls import read_tools
from luthier.corpus.turns import check_order, margin_of, text_of, weight_of


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Columns beside the text that training looks at.

    Attributes:
        task: The column that names a row's task.
        task_weights: Weight of each task; others weigh 1.
        category: The column that a split keeps alike on both sides; each row needs it.
        source_category: The column that the source declares to hold categories.
        fixed_category: The category of all rows of the source.
    """

    task: str | None = None
    task_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    category: str | None = None
    source_category: str | None = None
    fixed_category: str | None = None

    @classmethod
    def of(cls, settings: CorpusSettings, source: Source | None = None) -> RowColumns:
        """Return the columns that the settings name and this run uses.

        Args:
            settings: Which columns hold task and category.
            source: What is declared of the rows' source.
        """
        # Only a split needs the category: without one its absence is no fault of a row.
        splits = settings.val_size > 0 and settings.stratify_by != "length"
        return cls(
            task=settings.task_column,
            task_weights=settings.task_weights or {},
            category=settings.stratify_by if splits else None,
            source_category=source.columns.get("category") if source else None,
            fixed_category=source.category if source else None,
        )


def record_from_row(
    row: Row,
    origin: Origin,
    *,
    layout: Layout | None = None,
    columns: RowColumns | None = None,
) -> Record:
    """Return the record of a row of any kind.

    Args:
        row: The fields as they were read.
        origin: Where the row stood. A row of a prepared corpus has an origin of its own.
        layout: Where its parts stand; None looks at the fields.
        columns: Columns for task and category. Task weights are left to training.

    Raises:
        RowError: The row is of no known format, or neither a text nor turns that end with an
            answer.
    """
    columns = columns or RowColumns()
    layout = layout or find_record_layout(row)
    if isinstance(layout, RecordLayout):
        record = prepared_record(row)
    else:
        if isinstance(layout, TextLayout):
            record = _text_record(row, origin, layout)
        else:
            record = _chat_record(row, origin, layout)
        task = _label(row, columns.task) if columns.task else None
        weight = weight_of(row, "")
        if (task, weight) != (record.task, record.weight):
            record = replace(record, task=task, weight=weight)
    _check_turns(record)
    return with_category(record, row, columns)


def conversation_from_row(
    row: Row,
    origin: Origin,
    *,
    layout: Layout | None = None,
    columns: RowColumns | None = None,
) -> Conversation:
    """Return the training record of a row: its record, if training can use it.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: Where its parts stand; None looks at the fields.
        columns: Columns for task and category.

    Raises:
        RowError: The row is of no known format, or no conversation that ends with an answer; or
            it judges answers, calls tools or is a text, which is for other stages.
    """
    columns = columns or RowColumns()
    refuse_preference(row, layout)
    layout = layout or find_layout(row)
    if isinstance(layout, TextLayout) or (isinstance(layout, RecordLayout) and row.get("text")):
        raise unknown_format(row)
    if not isinstance(layout, TextLayout):
        _refuse_tools(row, layout)
    record = record_from_row(row, origin, layout=layout, columns=columns)
    _refuse_calls(row, layout, record.messages)
    weight = columns.task_weights.get(record.task, 1.0) if record.task else 1.0
    return Conversation(
        record.messages, record.origin, record.weight * weight, record.task, record.category
    )


def document_from_row(
    row: Row,
    origin: Origin,
    *,
    layout: Layout,
    columns: RowColumns | None = None,
) -> Record:
    """Return the record of a document for pre-training; its weight is that of its task too.

    Args:
        row: The fields as they were read.
        origin: Where the row stood.
        layout: Where its text stands.
        columns: Columns for task and category.

    Raises:
        RowError: The row holds no text, or something else beside it that is to be learned.
    """
    columns = columns or RowColumns()
    record = record_from_row(row, origin, layout=layout, columns=columns)
    if record.text is None or record.messages:
        raise no_document(row)
    weight = columns.task_weights.get(record.task, 1.0) if record.task else 1.0
    return record if weight == 1 else replace(record, weight=record.weight * weight)


def prompt_from_row(row: Row) -> tuple[Message, ...]:
    """Return the turns that a model is to answer.

    Takes `prompt`, `instruction` (with `input`), `question`, and lists of turns that end with the
    user. An answer in a field of its own is passed over, so that training files serve as prompts.

    Args:
        row: The fields as they were read.

    Raises:
        RowError: The row holds no prompt, or its turns don't end with the user.
    """
    layout = find_prompt_layout(row)
    _refuse_tools(row, layout)
    messages = read_prompt(row, layout)
    _refuse_calls(row, layout, messages)
    check_order(messages, ends_with="user")
    return tuple(messages)


def _text_record(row: Row, origin: Origin, layout: TextLayout) -> Record:
    if layout.text not in row:
        raise missing_field(row, layout.text)
    return Record(origin, text=text_of(row[layout.text], layout.text))


def _chat_record(row: Row, origin: Origin, layout: ChatLayout) -> Record:
    prompt = read_prompt(row, layout)
    tools = read_tools(row.get(layout.tools), layout.tools)
    if has_sides(row, layout.sides):
        shared, chosen, rejected = map(tuple, read_sides(row, layout, prompt))
        margin = margin_of(row)
        return Record(origin, shared, chosen=chosen, rejected=rejected, margin=margin, tools=tools)
    messages = (*prompt, *read_own_answer(row, layout))
    return Record(origin, messages, label=read_verdict(row, layout.label), tools=tools)


def _check_turns(record: Record) -> None:
    """Refuse an order of turns that no chat has, on either side."""
    if record.text is not None and not record.messages:
        return
    sides = [side for side in (record.chosen, record.rejected) if side is not None]
    for side in sides or [()]:
        check_order([*record.messages, *side], ends_with="assistant")


def with_category(record: Record, row: Row, columns: RowColumns) -> Record:
    """Return the record with the category that was declared; the source's word comes first."""
    named = columns.source_category or columns.category
    category = columns.fixed_category or (_label(row, named) if named else None) or record.category
    if columns.category and category is None:
        raise RowError("missing_field", f"the field {columns.category} (stratify_by) is missing")
    return record if category == record.category else replace(record, category=category)


def _label(row: Row, column: str) -> str | None:
    """Return the value of a column that names something; blank counts as absent."""
    value = row.get(column)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int | float):
        raise RowError("wrong_type", f"{column} is {kind_of(value)}, a name is needed")
    return str(value)


def _refuse_tools(row: Row, layout: ChatLayout | RecordLayout) -> None:
    """Refuse tools, which no template gets to see here."""
    refuse_filled(row, ("tools" if isinstance(layout, RecordLayout) else layout.tools,))


def _refuse_calls(row: Row, layout: Layout, messages: Sequence[Message]) -> None:
    """Refuse calls of tools, which no template gets to see here, by the place of the first."""
    at = next((at for at, message in enumerate(messages) if message.tool_calls), None)
    if at is None:
        return
    field, key = "messages", "tool_calls"
    if isinstance(layout, TurnsLayout):
        # A system prompt beside the turns stands before them.
        at -= len(messages) - len(row[layout.turns])
        field = layout.turns
        key = key if row[field][at].get(key) else layout.content
    raise RowError("unsupported_field", f"{field}[{at}].{key} is not supported: it calls tools")
