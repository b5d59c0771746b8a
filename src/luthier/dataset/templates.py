"""Chat templates: which one a run uses, and how it is rendered.

In: a tokenizer and the `template` setting. Out: the tokenizer with that template set as its own,
so that what is saved renders the same in transformers and vLLM without luthier. Rendering goes
through transformers' sandbox; templates and texts of unreasonable length are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Message
from luthier.contracts.notice import Notice
from luthier.core.errors import DataError, ModelError, SettingsError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TURN: dict[str, str | None] = {
    "llama3": "<|eot_id|>",
    "chatml": "<|im_end|>",
    "alpaca": None,
    "lecture": None,
}
"""Built-in templates and the token that ends a turn; None: the tokenizer's own end token."""

MODEL_FAMILIES = (
    *("baichuan", "cohere", "command", "deepseek", "default", "empty", "ernie", "exaone"),
    *("falcon", "gemma", "glm", "gpt", "granite", "hunyuan", "intern", "kimi", "llama2", "llama4"),
    *("llava", "minicpm", "ministral", "mistral", "mixtral", "mllama", "moonlight", "olmo", "phi"),
    *("qwen", "qwq", "seed", "smollm", "vicuna", "yi", "zephyr"),
)
"""Names by which LLaMA-Factory calls templates that the models themselves carry."""

MAX_TEMPLATE_CHARS = 200_000
"""The longest templates in use have about 20,000 characters."""

MAX_ADDED_CHARS = 1_000_000
"""A rendered text may be longer than its messages by this much."""

PROBE = (Message("user", "a"), Message("assistant", "b"))
"""The smallest conversation; a template that can't render it serves no chat."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template's text with the special tokens that it may name."""

    text: str
    special_tokens: Mapping[str, str]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> ChatTemplate:
        """Return the template that a tokenizer carries.

        Raises:
            ModelError: It carries none; call `resolve_template` first.
        """
        return cls(_own_template(tokenizer), dict(tokenizer.special_tokens_map))

    @property
    def marks_answers(self) -> bool:
        """Whether its author marked the answers with `{% generation %}`."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.text) is not None

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = False, where: str = ""
    ) -> str:
        """Return the messages as the one text that the model sees.

        Args:
            messages: The turns.
            add_generation_prompt: End with the header that asks the model for its answer.
            where: Origin of the messages, for errors.

        Raises:
            DataError: The template refuses these messages, or its output is too long.
        """
        return self._render(messages, add_generation_prompt, False, where)[0]

    def render_marked(
        self, messages: Sequence[Message], *, where: str = ""
    ) -> tuple[str, list[tuple[int, int]]]:
        """Return the text and the character ranges that `{% generation %}` marks.

        Raises:
            DataError: As `render`.
        """
        return self._render(messages, False, True, where)

    def _render(
        self, messages: Sequence[Message], prompt: bool, marked: bool, where: str
    ) -> tuple[str, list[tuple[int, int]]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        turns = [{"role": message.role, "content": message.content} for message in messages]
        # Only those that it spells: transformers copies each at every call.
        names: dict[str, Any] = {n: t for n, t in self.special_tokens.items() if n in self.text}
        try:
            rendered: Any = render_jinja_template(
                conversations=[turns],
                chat_template=self.text,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marked,
                **names,
            )
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise _refusal(error, turns, where) from error
        except (MemoryError, RecursionError) as error:
            raise _runaway(type(error).__name__, where) from error
        texts, ranges = rendered
        if len(texts[0]) > MAX_ADDED_CHARS + 10 * sum(len(m.content) for m in messages):
            raise _runaway(f"{len(texts[0]):,} characters of text", where)
        return texts[0], ranges[0] if marked else []


def resolve_template(
    tokenizer: PreTrainedTokenizerFast, template: str
) -> tuple[PreTrainedTokenizerFast, list[Notice]]:
    """Set the template that a run uses as the tokenizer's own.

    Args:
        tokenizer: Changed in place.
        template: `auto` (the tokenizer's own), a built-in name, or a path to a .jinja file.

    Returns:
        The tokenizer, and what had to be substituted.

    Raises:
        SettingsError: No such name or file.
        ModelError: The model has no template, or the template can't render a conversation.
    """
    notices: list[Notice] = []
    source = f"chat template ({template})"
    if template == "auto":
        text = _own_template(tokenizer)
    elif template in END_OF_TURN:
        text, notices = _built_in(tokenizer, template)
    elif template.endswith((".jinja", ".jinja2", ".j2", ".txt")) or "/" in template:
        text, source = _from_file(template), template
    else:
        raise _unknown_name(template)
    if len(text) > MAX_TEMPLATE_CHARS:
        raise ModelError(
            f"the template has {len(text):,} characters; {MAX_TEMPLATE_CHARS:,} are allowed",
            where=source,
            mend="No model needs that much. Use another template.",
        )
    tokenizer.chat_template = text
    _try_out(ChatTemplate.of(tokenizer), source)
    return tokenizer, notices


def prepends_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Return whether the tokenizer itself puts a BOS before a text."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("x").input_ids[:1]) == [bos]


def _own_template(tokenizer: PreTrainedTokenizerFast) -> str:
    carried = tokenizer.chat_template
    if isinstance(carried, dict):
        carried = carried.get("default")
    if carried:
        return carried
    raise ModelError(
        "the model has no chat template of its own, so template: auto has nothing to use",
        mend=f"Set template to one of {', '.join(END_OF_TURN)}, or to a .jinja file. "
        "For a base model take chatml.",
    )


def _built_in(tokenizer: PreTrainedTokenizerFast, name: str) -> tuple[str, list[Notice]]:
    """Return a built-in template, written for this tokenizer's BOS and end of turn."""
    if tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer has no end token, which template: {name} ends its answers with",
            mend='Add "eos_token" to the model\'s tokenizer_config.json.',
        )
    file = resources.files("luthier.dataset") / "templates" / f"{name}.jinja"
    text = file.read_text(encoding="utf-8")
    if not prepends_bos(tokenizer):
        text = text.replace("{{- bos_token }}\n", "")
    end = END_OF_TURN[name]
    if end is None or len(tokenizer.encode(end, add_special_tokens=False)) == 1:
        return text, []
    notice = Notice(
        setting="template",
        asked=f"{name} with {end}",
        used=f"{name} with {tokenizer.eos_token}",
        reason=f"{end} is no token of this model, so its own end token ends each turn",
    )
    return text.replace(f"'{end}'", "eos_token"), [notice]


def _from_file(template: str) -> str:
    path = Path(template).expanduser()
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise SettingsError(
            f"there is no template file {template}",
            where="template",
            mend=f"Check the path, or use auto, {', '.join(END_OF_TURN)}.",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"the template file {template} can't be read: {error}",
            where="template",
            mend="Give a text file in UTF-8 that you may read.",
        ) from error


def _unknown_name(template: str) -> SettingsError:
    if template.lower().startswith(MODEL_FAMILIES):
        mend = "Models of this family carry their template: use the model's own, template: auto."
    else:
        mend = did_you_mean(template, ["auto", *END_OF_TURN])
    return SettingsError(f"unknown template {template!r}", where="template", mend=mend)


def _try_out(template: ChatTemplate, source: str) -> None:
    try:
        template.render(PROBE[:1], add_generation_prompt=True)
        template.render(PROBE)
    except DataError as error:
        raise ModelError(
            f"it can't render one question and one answer: {error.problem}",
            where=source,
            mend="Mend the template, or choose another by the template setting.",
        ) from error


def _refusal(error: Exception, turns: Sequence[Mapping[str, str]], where: str) -> DataError:
    line = _template_line(error)
    place = f"line {line}: " if line is not None else ""
    roles = ", ".join(turn["role"] for turn in turns[:8]) + (", ..." if len(turns) > 8 else "")
    return DataError(
        f"the chat template fails at {place}{error or type(error).__name__} (roles: {roles})",
        where=where or None,
        mend="Bring the row into the order of roles that the template knows, or choose another "
        "by the template setting.",
    )


def _runaway(what: str, where: str) -> DataError:
    return DataError(
        f"the chat template runs away: {what} from one conversation",
        where=where or None,
        mend="Don't use this template; it may be hostile.",
    )


def _template_line(error: Exception) -> int | None:
    """Return the line of the template that an error comes from.

    jinja2 rewrites tracebacks so that the template's own lines stand in them.
    """
    line: int | None = getattr(error, "lineno", None)
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in {"<template>", "<unknown>"}:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
