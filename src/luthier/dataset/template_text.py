"""One chat as one text, by a chat template: what transformers makes of it, or why it makes nothing.

In: a template's text and turns. Out: an `Outcome`, in values that JSON holds, for a template may
be rendered in a process of its own (`template_process.py`). It refuses texts of unreasonable
length. Neither time nor memory is bounded here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

MAX_ADDED_CHARS = 1_000_000
"""A rendered text may be longer than its messages, ten times over, by this much."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One rendering that is asked for.

    Attributes:
        turns: Role and content of each.
        prompt: End with the header that asks the model for its answer.
        marked: Return the ranges that `{% generation %}` marks too.
    """

    turns: Sequence[tuple[str, str]]
    prompt: bool = False
    marked: bool = False

    def num_chars(self) -> int:
        """Return the length of all contents together."""
        return sum(len(content) for _, content in self.turns)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one rendering.

    Attributes:
        text: The text, where there is one.
        ranges: The ranges of characters that `{% generation %}` marks.
        refusal: What the template's author or jinja2 says against these turns.
        line: Line of the template that refuses.
        runaway: What the template does beyond all measure, as a noun phrase.
    """

    text: str = ""
    ranges: Sequence[Sequence[int]] = ()
    refusal: str | None = None
    line: int | None = None
    runaway: str | None = None


def render_text(template: str, asked: Asked, names: Mapping[str, Any]) -> Outcome:
    """Render turns by transformers' own function, in its sandbox.

    Args:
        template: The template's text.
        asked: What is to be rendered.
        names: Special tokens that the template may name.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(
            conversations=[[{"role": role, "content": text} for role, text in asked.turns]],
            chat_template=template,
            add_generation_prompt=asked.prompt,
            return_assistant_tokens_mask=asked.marked,
            **names,
        )
    except (MemoryError, RecursionError) as error:
        return Outcome(runaway=type(error).__name__)
    except SyntaxError as error:  # of the Python that jinja2 made of it
        return Outcome(refusal=error.msg)
    except Exception as error:  # whatever a template raises is its refusal
        return Outcome(refusal=str(error) or type(error).__name__, line=_template_line(error))
    texts, ranges = rendered
    if len(texts[0]) > MAX_ADDED_CHARS + 10 * asked.num_chars():
        return Outcome(runaway=f"{len(texts[0]):,} characters of text")
    return Outcome(texts[0], ranges[0] if asked.marked else ())


def _template_line(error: Exception) -> int | None:
    """Return the line of the template that an error comes from.

    jinja2 rewrites tracebacks so that the template's own lines stand in them.
    """
    line: int | None = getattr(error, "lineno", None)
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {"<template>", "<unknown>"}:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
