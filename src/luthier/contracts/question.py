"""What an answer of the model's own is judged by: the contract of reward functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Reward = Callable[[str, str, Mapping[str, Any]], float]
"""From what the user said last, what the model answers, and the row, to a number: more is better.

The row has the fields that it has in the user's file, and under `reference` the answer that it
holds itself (None where it holds none)."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a row of prompts says beside its turns.

    Attributes:
        prompt: What the user said last.
        row: The fields of the row, and `reference`. Values that JSON does not have are texts.
    """

    prompt: str
    row: Mapping[str, Any]

    @classmethod
    def of(cls, prompt: str, row: Mapping[str, Any], reference: str | None) -> Question:
        """Put the reference beside the fields of a row; a field of that name gives way to it."""
        return cls(prompt, {**row, "reference": reference})

    def to_json(self) -> str:
        """Return it as one text."""
        return json.dumps({"prompt": self.prompt, "row": self.row}, ensure_ascii=False, default=str)

    @classmethod
    def from_json(cls, text: str) -> Question:
        """Return what `to_json` wrote."""
        return cls(**json.loads(text))
