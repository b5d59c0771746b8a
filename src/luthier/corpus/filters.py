"""The rule filter: conversations that are well formed and still not worth training on.

A filter is a pure function of one conversation and the settings: why it goes, or None. Adding one
is adding a function to `FILTERS`, under the reason that its drops are counted by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from luthier.contracts.conversation import Conversation
from luthier.corpus.settings import CorpusSettings

Filter = Callable[[Conversation, CorpusSettings], str | None]


def short_answer(conversation: Conversation, settings: CorpusSettings) -> str | None:
    """Drop a conversation whose last answer is shorter than `min_answer_chars` once stripped."""
    num_chars = len(conversation.messages[-1].content.strip())
    if num_chars >= settings.min_answer_chars:
        return None
    return f"the answer has {num_chars} characters, min_answer_chars is {settings.min_answer_chars}"


FILTERS: Mapping[str, Filter] = {"short_answer": short_answer}
"""Each filter by its reason, in the order in which they are asked."""


def why_dropped(conversation: Conversation, settings: CorpusSettings) -> tuple[str, str] | None:
    """Return reason and detail of the first filter that drops a conversation, or None.

    Args:
        conversation: A conversation that ends with an answer.
        settings: The thresholds.
    """
    for reason, is_dropped in FILTERS.items():
        detail = is_dropped(conversation, settings)
        if detail is not None:
            return reason, detail
    return None
