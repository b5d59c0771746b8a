"""The rule filter: rows that are well formed and still not worth training on.

A filter is a pure function of one row and the settings: why it goes, or None. Adding one is adding
a function to `FILTERS`, under the reason that its drops are counted by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from luthier.contracts.conversation import Conversation, Message, Record
from luthier.corpus.settings import CorpusSettings

Filter = Callable[[Record | Conversation, CorpusSettings], str | None]


def short_answer(row: Record | Conversation, settings: CorpusSettings) -> str | None:
    """Drop a row whose last answer is shorter than `min_answer_chars` once stripped.

    Of ranked answers the better one counts; calls of tools are an answer of any length.
    """
    turns = _answered(row)
    if not turns or turns[-1].tool_calls:
        return None
    num_chars = len(turns[-1].content.strip())
    if num_chars >= settings.min_answer_chars:
        return None
    return f"the answer has {num_chars} characters, min_answer_chars is {settings.min_answer_chars}"


def empty_text(row: Record | Conversation, settings: CorpusSettings) -> str | None:
    """Drop a document for pre-training that is blank."""
    del settings
    if isinstance(row, Conversation) or row.text is None or row.text.strip():
        return None
    return "the text is blank"


FILTERS: Mapping[str, Filter] = {"short_answer": short_answer, "empty_text": empty_text}
"""Each filter by its reason, in the order in which they are asked."""


def why_dropped(row: Record | Conversation, settings: CorpusSettings) -> tuple[str, str] | None:
    """Return reason and detail of the first filter that drops a row, or None.

    Args:
        row: A row; its turns end with an answer.
        settings: The thresholds.
    """
    for reason, is_dropped in FILTERS.items():
        detail = is_dropped(row, settings)
        if detail is not None:
            return reason, detail
    return None


def _answered(row: Record | Conversation) -> Sequence[Message]:
    if isinstance(row, Record) and row.chosen is not None:
        return row.chosen
    return row.messages
