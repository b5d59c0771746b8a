"""Tools and calls of them, as JSON text: kept without loss, whatever shape they come in.

In: the tools that a row declares, or the calls of one turn, as lists, objects or text. Out: JSON as
text, the calls always as a list. Text that is no JSON stays as it is: the step `schema` judges it.
"""

from __future__ import annotations

import json
from typing import Any

from luthier.corpus.bad_rows import RowError, kind_of


def read_tools(value: Any, path: str) -> str | None:
    """Return the tools that a row declares as JSON text; nothing, or an empty list, is None.

    Args:
        value: What stands in the row.
        path: Where, for the message.

    Raises:
        RowError: It is neither a list, an object nor text, or holds what JSON has no form for.
    """
    if value is None or isinstance(value, str):
        return value if value and value.strip() else None
    if not isinstance(value, list | dict):
        raise RowError("wrong_type", f"{path} is {kind_of(value)}, a list of tools is needed")
    return _json_text(value, path) if value else None


def read_calls(value: Any, path: str) -> str | None:
    """Return the calls of one turn as the text of a JSON list; see `read_tools`.

    Raises:
        RowError: It is neither a list, an object nor text, or holds what JSON has no form for.
    """
    text = read_tools(value, path)
    if text is None:
        return None
    try:
        is_one_call = isinstance(json.loads(text), dict)
    except ValueError:
        return text
    return f"[{text.strip()}]" if is_one_call else text


def _json_text(value: Any, path: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RowError("wrong_type", f"{path} can't be written as JSON: {error}") from error
