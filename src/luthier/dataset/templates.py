"""Chat templates: which one a run uses, and how it is rendered.

In: a tokenizer and the `template` setting. Out: the tokenizer with that template set as its own,
so that what is saved renders the same in transformers and vLLM without luthier. Rendering goes
through transformers' sandbox; templates and texts of unreasonable length are refused, and templates
that luthier did not write run in a process with limits (`template_process.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.conversation import Message
from luthier.contracts.notice import Notice
from luthier.core.errors import DataError, ModelError, SettingsError, did_you_mean
from luthier.dataset.template_process import render_apart
from luthier.dataset.template_text import Asked, Outcome, render_text

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

PROBE = (Message("user", "a"), Message("assistant", "b"))
"""The smallest conversation; a template that can't render it serves no chat."""


Rendering = tuple[tuple[Message, ...], bool, bool]
"""Messages, whether the generation prompt follows, and whether marks are wanted."""


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template's text with the special tokens that it may name."""

    text: str
    special_tokens: Mapping[str, str]
    _ahead: dict[Rendering, Outcome] = field(
        default_factory=dict[Rendering, Outcome], compare=False, repr=False
    )

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
        ahead = self._ahead.pop((tuple(messages), prompt, marked), None)
        outcome = ahead or self._outcomes([_asked(messages, prompt, marked)])[0]
        if outcome.runaway is not None:
            raise _runaway(outcome.runaway, where)
        if outcome.refusal is not None:
            raise _refusal(outcome.refusal, outcome.line, messages, where)
        return outcome.text, [(start, end) for start, end in outcome.ranges]

    def foresee(self, wanted: Iterable[Rendering]) -> None:
        """Render in one go what will be asked for next; the outcomes wait until then.

        Those that were foreseen before and not asked for are forgotten.
        """
        self._ahead.clear()
        unique = [] if self.text in _own_texts() else list(dict.fromkeys(wanted))
        if unique:
            outcomes = self._outcomes([_asked(*one) for one in unique])
            self._ahead.update(zip(unique, outcomes, strict=False))  # a hostile one ends the row

    def _outcomes(self, asked: Sequence[Asked]) -> list[Outcome]:
        """Render, in this process only what is luthier's own."""
        # Only those that it spells: transformers copies each at every call.
        names: dict[str, Any] = {n: t for n, t in self.special_tokens.items() if n in self.text}
        if self.text in _own_texts():
            return [render_text(self.text, one, names) for one in asked]
        return render_apart(self.text, asked, names)


def _asked(messages: Sequence[Message], prompt: bool, marked: bool) -> Asked:
    return Asked([(message.role, message.content) for message in messages], prompt, marked)


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
    end = END_OF_TURN[name]
    has_end = end is None or len(tokenizer.encode(end, add_special_tokens=False)) == 1
    text = _own_text(name, with_bos=prepends_bos(tokenizer), with_end=has_end)
    if has_end:
        return text, []
    notice = Notice(
        setting="template",
        asked=f"{name} with {end}",
        used=f"{name} with {tokenizer.eos_token}",
        reason=f"{end} is no token of this model, so its own end token ends each turn",
    )
    return text, [notice]


def _own_text(name: str, *, with_bos: bool, with_end: bool) -> str:
    """Return the text of a built-in template, for a tokenizer with or without its tokens."""
    file = resources.files("luthier.dataset") / "templates" / f"{name}.jinja"
    text = file.read_text(encoding="utf-8")
    if not with_bos:
        text = text.replace("{{- bos_token }}\n", "")
    return text if with_end else text.replace(f"'{END_OF_TURN[name]}'", "eos_token")


@cache
def _own_texts() -> frozenset[str]:
    """Return all texts that built-in templates have: whoever carries one of them, it is ours."""
    return frozenset(
        _own_text(name, with_bos=with_bos, with_end=with_end)
        for name in END_OF_TURN
        for with_bos in (True, False)
        for with_end in (True, False)
    )


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


def _refusal(what: str, line: int | None, messages: Sequence[Message], where: str) -> DataError:
    place = f"line {line}: " if line is not None else ""
    roles = ", ".join(message.role for message in messages[:8])
    roles += ", ..." * (len(messages) > 8)
    return DataError(
        f"the chat template fails at {place}{what} (roles: {roles})",
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
