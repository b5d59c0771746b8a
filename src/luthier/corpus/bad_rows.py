"""Rows that can't be used: the reasons by name, and the one place where a row ends a run.

In: what is wrong with one row. Out: a `Rejection` for the account, or a `DataError` for the user.
Damage to a whole file (wrong encoding, empty, not a list of rows) is no matter of rows: the
readers raise a `DataError` for it at once, whatever `on_bad_row` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from luthier.contracts.conversation import Origin, Rejection
from luthier.core.errors import DataError

CONTENT_CHARS = 2_000
"""A rejected row is kept up to this length: enough to see what it was."""

OnBadRow = Callable[[Rejection], None]
"""What a reader calls with a row that it can't deliver; it may raise."""

_ONE_OBJECT = "Write each row as one JSON object, for example " + json.dumps(
    {"instruction": "Name a colour.", "input": "", "output": "Blue."}
)

MENDS: Mapping[str, str] = {
    "not_json": f"{_ONE_OBJECT}, and each row of a jsonl file on one line (jq -c '.' does that)",
    "truncated": "Write or download the file again: it was cut off",
    "not_an_object": _ONE_OBJECT,
    "duplicate_key": "Give each field of a row once",
    "nan": "Write null, a number or text: NaN and Infinity are no JSON",
    "lone_surrogate": "Write the character again: half of a surrogate pair stands for nothing",
    "nul_bytes": "Write or download the file again: zero bytes are what a crash leaves behind",
    "not_csv": 'Put values that hold commas, quotes or line ends in quotes, and double inner "',
    "wrong_columns": "Give the row one value a column; values with commas go in quotes",
    "unknown_format": "Name the fields as one of the formats that are known does",
    "preference_data": "Leave these rows out: they rank answers, and belong to a preference stage",
    "unsupported_field": "Empty or remove the field, or leave the row out",
    "missing_field": "Add the field to the row",
    "wrong_type": "Give the field a value of the type that is named",
    "unknown_role": "Use the roles system, user, assistant and tool",
    "role_order": "Let user and assistant take turns, after at most one system message",
    "empty_prompt": "Write the prompt, or leave the row out",
    "empty_turn": "Write the turn, give it weight 0, or leave the row out",
    "no_answer": "End the conversation with what the assistant is to say, or leave the row out",
    "two_prompts": "Let both answers, and the prompt beside them, begin with the same turns",
    "short_answer": "Lower min_answer_chars, or mend the answers",
    "empty_text": "Leave blank texts out",
    "not_sampled": "Raise num_samples",
}
"""Each reason for which a row leaves, and what its author can do about it."""

_SKIP = "or set on_bad_row: skip to count such rows and leave them out."


class RowError(Exception):
    """One row can't be used.

    Args:
        reason: A key of `MENDS`.
        detail: What is wrong with this row, as a clause that names field and value.
        mend: In place of the mend of the reason, where there is a better one.
    """

    def __init__(self, reason: str, detail: str, *, mend: str | None = None) -> None:
        assert reason in MENDS, reason
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.mend = mend

    def rejection(self, origin: Origin, content: str | Mapping[str, Any]) -> Rejection:
        """Return the entry for the account of rows that left."""
        return Rejection(origin, self.reason, self.detail, clip(content))

    def data_error(self, origin: Origin) -> DataError:
        """Return the error that ends the run, for rows that can't be skipped."""
        return DataError(self.detail, where=str(origin), mend=self.mend or f"{MENDS[self.reason]}.")


def raise_rejection(rejection: Rejection) -> NoReturn:
    """End the run at a row that can't be used: the policy `on_bad_row: error`.

    Raises:
        DataError: Always.
    """
    mend = f"{MENDS[rejection.reason]}, {_SKIP}"
    raise DataError(rejection.detail, where=str(rejection.origin), mend=mend)


def raise_unskippable(rejection: Rejection) -> NoReturn:
    """End the run at a row that can't be used, where `on_bad_row` has no say.

    Raises:
        DataError: Always.
    """
    mend = f"{MENDS[rejection.reason]}."
    raise DataError(rejection.detail, where=str(rejection.origin), mend=mend)


def clip(content: str | Mapping[str, Any]) -> str:
    """Return a row as text that can be written to a file: cut to `CONTENT_CHARS`, valid UTF-8."""
    if not isinstance(content, str):
        content = json.dumps(content, ensure_ascii=False, default=str)
    content = content.strip()
    if len(content) > CONTENT_CHARS:
        content = f"{content[:CONTENT_CHARS]}... ({len(content)} characters)"
    return content.encode("utf-8", "backslashreplace").decode("utf-8")


def kind_of(value: object) -> str:
    """Return the kind of a JSON value, in the words of an error message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list | tuple):
        return "a list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"
