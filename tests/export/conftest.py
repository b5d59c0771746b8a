"""A tiny chat model, the source that is exported of it, and what it said to a probe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.export.probe import Probe, ProbeChat, RowLogProbs
from luthier.export.source import Source
from luthier.export.transformers_runtime import TransformersRuntime

MESSAGES = (
    {"role": "user", "content": "Name three colours, 请."},
    {"role": "assistant", "content": "Red."},
    {"role": "user", "content": "And  two\n\nmore?"},
)


@pytest.fixture
def source(tiny_llama: Any, tiny_tokenizer: Any) -> Source:
    """A whole model of sharp opinions, in float32."""
    folder = tiny_llama("model", initializer_range=0.3)
    stops = [tiny_tokenizer.eos_token_id, tiny_tokenizer.pad_token_id]
    settings = {"eos_token_id": stops, "pad_token_id": tiny_tokenizer.pad_token_id}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    facts = {"name": "model", "base": "tiny", "data": {"prepared data": "abc"}}
    return Source(folder, "float32", tuple(stops), facts)


@pytest.fixture
def ask() -> Callable[[Path, tuple[int, ...]], Probe]:
    """Return what asks the model in a folder."""

    def make(folder: Path, stops: tuple[int, ...]) -> Probe:
        runtime = TransformersRuntime.of_folder(folder)
        chats = []
        for turns in (MESSAGES[:1], MESSAGES):
            text = runtime.tokenizer.apply_chat_template(
                list(turns), add_generation_prompt=True, tokenize=False
            )
            ids = tuple(runtime.tokenizer(text, add_special_tokens=False)["input_ids"])
            chats.append(ProbeChat(turns, text, ids))
        rows = tuple(chat.ids for chat in chats)
        answered = [runtime.answer(ids, 8) for ids in rows]
        return Probe(
            origin="two chats",
            chats=tuple(chats),
            rows=rows,
            log_probs=tuple(RowLogProbs.of(runtime.log_probs(ids), ids) for ids in rows),
            prompts=rows,
            answers=tuple(text for text, _ in answered),
            stopped=tuple(ended for _, ended in answered),
            max_new_tokens=8,
            stop_token_ids=stops,
        )

    return make


@pytest.fixture
def probe(source: Source, ask: Callable[[Path, tuple[int, ...]], Probe]) -> Probe:
    """What the model of `source` said."""
    return ask(source.folder, source.stop_token_ids)
