"""HTML entities that a scraper or a form left in prose.

In: the texts of a row. Out: the characters that the entities name. Nothing is decoded in a row that
shows tags or speaks of HTML, in code, or in an address: there an entity may be what was meant.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

from luthier.corpus.text.code_spans import is_code_line, outside_code

ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_MARKUP = re.compile(
    r"</?(?:a|b|i|u|p|br|hr|em|li|ol|ul|td|th|tr|div|img|pre|span|body|code|form|head|html|link|meta"
    r"|h[1-6]|table|title|input|script|style|strong|button|svg|!doctype|\?xml)\b[^<>]*>"
    # Not \b: Chinese stands right beside a word, and is no end of it to a pattern.
    r"|(?<![A-Za-z])(?:x?html5?|xml|ampersands?|web ?pages?|character entit(?:y|ies)"
    r"|escap(?:e|ed|ing) (?:\w+ )?(?:characters?|sequences?|quotes?|strings?|symbols?))(?![A-Za-z])"
    r"|实体|转义|网页",
    re.IGNORECASE,
)
# A link, or what is left of one.
_ADDRESS = re.compile(r"(?:[\w+.-]*://|www\.|[^\s()<>\"']*\?[\w.-]+=)[^\s()<>\"']*")


def speaks_of_markup(texts: Iterable[str]) -> bool:
    """Return whether one of a row's texts holds tags or speaks of HTML, XML or escaping."""
    return any(_MARKUP.search(text) for text in texts)


def decode_entities(text: str) -> str:
    """Return a text with leftover entities decoded: in prose, once.

    Args:
        text: A text of a row that doesn't speak of markup.
    """
    if "&" not in text or not ENTITY.search(text):
        return text
    return outside_code(text, _decode_prose)


def _decode_prose(prose: str) -> str:
    if not ENTITY.search(prose):
        return prose
    return "".join(
        line if is_code_line(line) else _decode_line(line)
        for line in prose.splitlines(keepends=True)
    )


def _decode_line(line: str) -> str:
    pieces: list[str] = []
    end = 0
    for address in _ADDRESS.finditer(line):
        pieces += (ENTITY.sub(_character, line[end : address.start()]), address[0])
        end = address.end()
    return "".join((*pieces, ENTITY.sub(_character, line[end:])))


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])
