"""What the tests of the dataset share: conversations, renderers, and masks as people read them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.dataset.rendering import Rendered, Renderer
from luthier.dataset.templates import resolve_template

TEMPLATES = Path(__file__).parent / "templates_data"
ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}

Talk = Callable[..., Conversation]
Shown = Callable[[Rendered], str]
MakeRenderer = Callable[..., Renderer]


@pytest.fixture(scope="session")
def talk() -> Talk:
    """Make a conversation of `u="Hi", a="Hello"` pairs, given in order as (role, content)."""

    def make(*turns: tuple[str, str], weights: dict[int, float] | None = None, weight: float = 1.0):
        messages = tuple(
            Message(ROLES[role], content, (weights or {}).get(i, 1.0))  # type: ignore[arg-type]
            for i, (role, content) in enumerate(turns)
        )
        return Conversation(messages, Origin("rows.jsonl", 6, 7), weight=weight)

    return make


@pytest.fixture(scope="session")
def shown() -> Shown:
    """Show a row as its text with the taught parts in «»."""

    def show(row: Rendered) -> str:
        text, out, is_open = row.transcript.text, "", False
        for (start, end), taught in zip(row.char_spans(), row.supervised, strict=True):
            if taught != is_open:
                out += "«" if taught else "»"
                is_open = taught
            out += text[start:end]
        return out + ("»" if is_open else "")

    return show


@pytest.fixture(scope="session")
def renderer(tokenizer_folders: dict[str, Path]) -> MakeRenderer:
    """Make a renderer by names of tokenizer and template; a template of templates_data by stem."""

    @cache
    def make(tokenizer: str, template: str, **options: Any) -> Renderer:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(str(tokenizer_folders[tokenizer]))
        file = TEMPLATES / f"{template}.jinja"
        resolve_template(loaded, str(file) if file.exists() else template)
        return Renderer(loaded, **options)

    return make
