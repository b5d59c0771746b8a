"""Text into Markdown (GitHub's) that shows as what it is.

In: any text. Out: one line in which nothing is markup: no emphasis, link, table cell, formula or
HTML. Text that is markup already (`Markup`) passes.
"""

from __future__ import annotations

import re

from markupsafe import Markup

from luthier.report.shown_text import visible
from luthier.report.words import Text

_SPECIAL = re.compile(r"[\\`*_\[\]#|~$]")
_ENTITIES = {"&": "&amp;", "<": "&lt;"}


def escape(value: object) -> object:
    """Return a text escaped, and anything else, such as a number, as it is."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    line = " ".join(visible(value).split())
    for char, entity in _ENTITIES.items():
        line = line.replace(char, entity)
    return Markup(_SPECIAL.sub(r"\\\g<0>", line))


def code(text: str) -> Markup:
    """Return a text as code, also within a table."""
    line = " ".join(visible(text).split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return Markup(f"{fence}{pad}{line or ' '}{pad}{fence}")


def block(text: str, language: str) -> Markup:
    """Return lines as a block of code."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{visible(text)}\n{fence}")


def both(text: Text) -> Markup:
    """Return a text in English, with Chinese in parentheses where it differs."""
    if text.en == text.zh:
        return Markup(escape(text.en))
    return Markup(f"{escape(text.en)} ({escape(text.zh)})")
