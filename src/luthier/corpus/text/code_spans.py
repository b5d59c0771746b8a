"""Which parts of a text are code: fenced blocks, spans between backticks, lines of statements.

A repair that only mends prose goes through `outside_code`, and can't touch what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# A fence that isn't closed runs to the end, as it does for who renders it.
_CODE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,}).*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)"
    r"|(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)+?(?<!`)(?P=ticks)(?!`)"
    r"|<(?P<tag>pre|code|script|style)\b.*?(?:</(?P=tag)>|\Z)",
    re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_CODE_TAG = re.compile(r"<(?:pre|code|script|style)\b", re.IGNORECASE)
_CODE_LINE = re.compile(
    r"^\s*(?:#include|#define|import\s|from\s+\S+\s+import|def\s|class\s|function\b|return\b"
    r"|(?:if|for|while|switch)\s*\(|\$\s|>>>\s|(?:var|let|const|int|char|void|public|private)\s)"
    r"|[{}]\s*$|[)\w\]\"']\s*;\s*$",
)
_ADDRESS_OF = re.compile(r"^[^&;]*=\s*&[A-Za-z]\w*;\s*$")
# An entity ends in a semicolon, which is no sign of code by itself.
_ENTITY = re.compile(r"&(?:amp;)*#?\w+;")


def may_hold_code(text: str) -> bool:
    """Return whether a text has a mark of code at all; most texts don't."""
    return "`" in text or "~~~" in text or ("<" in text and _CODE_TAG.search(text) is not None)


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Change a text except for fenced blocks and spans of code.

    Args:
        text: Markdown, HTML or plain text.
        change: From an old piece of prose to a new one.
    """
    if not may_hold_code(text):
        return change(text)
    pieces: list[str] = []
    end = 0
    for found in _CODE.finditer(text):
        pieces += (change(text[end : found.start()]), found[0])
        end = found.end()
    pieces.append(change(text[end:]))
    return "".join(pieces)


def is_code_line(line: str) -> bool:
    """Return whether a line that stands in no fence reads as code: a statement, not a sentence."""
    is_address_of = _ADDRESS_OF.match(line) is not None
    return is_address_of or _CODE_LINE.search(_ENTITY.sub("&", line)) is not None
