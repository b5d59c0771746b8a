"""JSON read strictly: what most readers let pass is named here.

The standard decoder keeps the last of two equal keys, takes NaN and Infinity for numbers, and
half of a surrogate pair for a character that no tokenizer can encode. Each of these means that
the text of a row is not what its author believes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, cast

from luthier.corpus.bad_rows import RowError, kind_of

TOO_DEEP = "Nested too deep"
NUMBER_TOO_LONG = "Number too long"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


class StrictDecoder:
    """Decodes one JSON value of a text at a time, and says what is amiss with it."""

    def __init__(self) -> None:
        self._amiss: RowError | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._as_object, parse_constant=self._as_constant
        )

    def decode_at(self, text: str, start: int) -> tuple[Any, int, RowError | None]:
        """Decode the value that starts at a position.

        Args:
            text: Any text.
            start: Position of the first character of the value, not of white space.

        Returns:
            The value, the position behind it, and what is amiss with it, if anything. A value
            with something amiss is whole all the same, so that reading can go on behind it.

        Raises:
            JSONDecodeError: There is no whole JSON value at this position.
        """
        self._amiss = None
        try:
            value, end = self._decoder.raw_decode(text, start)
        except RecursionError as error:
            raise JSONDecodeError(TOO_DEEP, text, start) from error
        except JSONDecodeError:
            raise
        except ValueError as error:  # an integer with more digits than Python converts
            raise JSONDecodeError(NUMBER_TOO_LONG, text, start) from error
        if self._amiss is None and _SURROGATE_ESCAPE.search(text, start, end):
            self._amiss = _lone_surrogate(value)
        return value, end, self._amiss

    def _as_object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs) and self._amiss is None:
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            detail = f"the field {twice} stands {keys.count(twice)} times in one object"
            self._amiss = RowError("duplicate_key", detail)
        return found

    def _as_constant(self, name: str) -> float:
        if self._amiss is None:
            self._amiss = RowError("nan", f"{name} is not a JSON value")
        return float(name.replace("Infinity", "inf"))


def as_row(value: Any, amiss: RowError | None) -> dict[str, Any]:
    """Return a decoded value as a row.

    Raises:
        RowError: Something is amiss with the value, or it is not an object.
    """
    if amiss is not None:
        raise amiss
    if not isinstance(value, dict):
        raise RowError("not_an_object", f"the row is {kind_of(value)}, not an object of fields")
    return cast(dict[str, Any], value)


def count_keys(value: Any) -> int:
    """Return the number of keys of all objects within a value."""
    return sum(len(node) for node in _nodes(value) if isinstance(node, dict))


def _nodes(value: Any) -> Iterator[Any]:
    """Yield a value and all that it contains; by a stack, for rows may be nested deep."""
    stack = [value]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, dict):
            stack.extend(cast(dict[str, Any], node).values())
        elif isinstance(node, list):
            stack.extend(cast(list[Any], node))


def _lone_surrogate(value: Any) -> RowError | None:
    for node in _nodes(value):
        texts: list[str] = list(cast(dict[str, Any], node)) if isinstance(node, dict) else []
        if isinstance(node, str):
            texts = [node]
        for text in texts:
            half = next((char for char in text if "\ud800" <= char <= "\udfff"), None)
            if half is not None:
                return RowError("lone_surrogate", f"half of a surrogate pair: \\u{ord(half):04x}")
    return None
