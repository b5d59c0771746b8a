"""What exported artifacts are asked: rows, chats and prompts, and the trained model's own answers.

In: the trained model with its adapter apart, and rows that it was not taught: a file's, the run's
validation rows, or a few built-in chats where there are none. Out: a `Probe`. Rows are computed one
at a time, so that one row's logits are all that is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from luthier.contracts.conversation import Conversation, Message, Origin
from luthier.core.errors import DataError, SettingsError
from luthier.dataset.rendering import Renderer
from luthier.dataset.side import describe_template
from luthier.dataset.tokens import Encoder
from luthier.evaluation.generation import generate_answers
from luthier.evaluation.settings import generation_settings
from luthier.export.probe import Probe, ProbeChat, RowLogProbs
from luthier.export.transformers_runtime import TransformersRuntime
from luthier.recipes.answering import ModelPlace, default_system
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.evaluation_rows import EvaluationRow, rows_of_file, rows_of_run
from luthier.recipes.export_source import ExportedModel
from luthier.recipes.run_folder import RUN_YAML
from luthier.recipes.screen import Screen

NUM_TOKENS = 512
"""Tokens of all rows together."""
ROW_TOKENS = 160
"""Of one row, so that there are several."""
_NUM_READ = 16
_NUM_CHATS = 4
_NUM_PROMPTS = 3
_MAX_NEW_TOKENS = 32

_BUILT_IN = (
    (Message("user", "Name three colours."), Message("assistant", "Red, green and blue.")),
    (
        Message("system", "You are brief."),
        Message("user", "What is 12 * 12?"),
        Message("assistant", "144"),
        Message("user", "And 13 * 13?  Show\n\nthe steps."),
        Message("assistant", "13 * 13 = 13 * 10 + 13 * 3 = 130 + 39 = 169"),
    ),
    (
        Message("user", "用一句话介绍杭州。🎻"),
        Message("assistant", "杭州是一座以西湖闻名的城市。"),
    ),
    (
        Message("user", "Write a Python function that adds two numbers."),
        Message("assistant", "```python\ndef add(a, b):\n    return a + b  # don't round\n```"),
    ),
)
"""Each once, for templates and tokenizers: a system prompt, several turns, other scripts, code."""


@dataclass(frozen=True, slots=True)
class _Asked:
    origin: str
    rows: Sequence[tuple[int, ...]]
    chats: Sequence[ProbeChat]


def make_probe(
    exported: ExportedModel,
    trained: Any,
    stop_token_ids: tuple[int, ...],
    data: str | None,
    screen: Screen,
) -> Probe:
    """Ask the trained model.

    Args:
        exported: What is exported.
        trained: It, loaded, not merged.
        stop_token_ids: Any of these ends an answer.
        data: File of rows; None takes the run's validation rows, or the built-in chats.
        screen: Told what takes time, and which rows are taken.

    Raises:
        DataError: The file can't be used, or no row of it suits the model.
    """
    origin, found = _find_rows(exported.place, data, screen)
    asked = _render(exported, origin, found, _context(trained))
    screen.say(f"The trained model is asked: {asked.origin}")
    runtime = TransformersRuntime(trained, exported.tokenizer)
    log_probs: list[RowLogProbs] = []
    for number, ids in enumerate(asked.rows):
        screen.working("probing", number, len(asked.rows))
        log_probs.append(RowLogProbs.of(runtime.log_probs(ids), ids))
    screen.working("probing", len(asked.rows), len(asked.rows))
    prompts = [chat.ids for chat in asked.chats if chat.messages][:_NUM_PROMPTS]
    settings = generation_settings(max_new_tokens=_MAX_NEW_TOKENS, batch_size=1)
    answers = generate_answers(trained, exported.tokenizer, prompts, settings, stop_token_ids)
    return Probe(
        origin=asked.origin,
        chats=tuple(asked.chats),
        rows=tuple(asked.rows),
        log_probs=tuple(log_probs),
        prompts=tuple(prompts),
        answers=tuple(answer.text for answer in answers),
        stopped=tuple(answer.finish_reason == "stop" for answer in answers),
        max_new_tokens=_MAX_NEW_TOKENS,
        stop_token_ids=stop_token_ids,
        day=_day(exported),
    )


def _day(exported: ExportedModel) -> str | None:
    """Return today, where the template writes it."""
    if not exported.tokenizer.chat_template:
        return None
    return describe_template(exported.tokenizer).get("date")


def _find_rows(
    place: ModelPlace, data: str | None, screen: Screen
) -> tuple[str, Sequence[EvaluationRow]]:
    if data is not None:
        rows = rows_of_file(data, _NUM_READ)
        return rows.path, rows.rows
    why = "the model is of no run"
    if place.run is not None:
        config = resolve_file(place.run / RUN_YAML).config
        try:
            rows = rows_of_run(config, _NUM_READ, screen)
            return f"validation rows of {rows.path}", rows.rows
        except (DataError, SettingsError) as error:  # moved data, no validation rows
            why = error.problem
    return f"built-in chats ({why})", ()


def _render(
    exported: ExportedModel, origin: str, found: Sequence[EvaluationRow], context: int
) -> _Asked:
    tokenizer = exported.tokenizer
    encoder = Encoder(tokenizer)
    renderer = None
    if tokenizer.chat_template:
        renderer = Renderer(tokenizer, default_system=default_system(exported.place.run))
    records = [row.record for row in found]
    built_in = [Conversation(turns, Origin("built-in", n)) for n, turns in enumerate(_BUILT_IN)]
    rows: list[tuple[int, ...]] = []
    left = NUM_TOKENS
    # Where the rows are few, the built-in chats fill up.
    for ids in _row_ids([*records, *built_in], renderer, encoder):
        cut = tuple(ids[: min(ROW_TOKENS, left, context)])
        if len(cut) > 1:
            rows.append(cut)
            left -= len(cut)
    if not rows:
        raise DataError(
            "no row suits the model: its template refuses them, or they are empty",
            where=origin,
            mend="Name other rows: --data FILE",
        )
    chats = [r for r in records if isinstance(r, Conversation)][:_NUM_CHATS]
    return _Asked(origin, rows, list(_chats([*chats, *built_in], renderer, encoder)))


def _row_ids(
    records: Sequence[Any], renderer: Renderer | None, encoder: Encoder
) -> Iterator[Sequence[int]]:
    for record in records:
        if not isinstance(record, Conversation):
            yield encoder.encode(record.text).ids
        elif renderer is None:
            yield encoder.encode(" ".join(m.content for m in record.messages)).ids
        else:
            try:
                yield from (row.input_ids for row in renderer.render(record))
            except DataError:  # a role that the template refuses: others are left
                continue


def _chats(
    conversations: Sequence[Conversation], renderer: Renderer | None, encoder: Encoder
) -> Iterator[ProbeChat]:
    for conversation in conversations:
        if renderer is None:
            text = conversation.messages[-1].content
            yield ProbeChat((), text, tuple(encoder.encode(text).ids))
            continue
        messages = renderer.with_system(conversation.messages[:-1])
        if not messages or any(message.tool_calls for message in messages):
            continue  # calls of tools have no one form outside
        try:
            text = renderer.template.render(messages, add_generation_prompt=True)
            ids = tuple(renderer.prompt_ids(messages))
        except DataError:
            continue
        told = tuple({"role": m.role, "content": m.content} for m in messages)
        yield ProbeChat(told, text, ids)


def _context(model: Any) -> int:
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or NUM_TOKENS
