"""A file of prompts in, a file of answers out, in the same order, whole or not there.

While it runs, answers gather in `OUT.partial` as they come, so that what a broken-off run has
written is not lost. A row that holds no prompt ends the run before a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from luthier.contracts.conversation import Message, Origin, Rejection
from luthier.core.errors import DataError, RunError
from luthier.core.files import append_jsonl, write_jsonl
from luthier.corpus.bad_rows import MENDS, RowError
from luthier.corpus.paths import expand
from luthier.corpus.readers.dispatch import read_rows
from luthier.corpus.unify import prompt_from_row
from luthier.evaluation.generation import Answer, generate_answers, room_for_answer
from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.answering import AnsweringModel


@dataclass(frozen=True, slots=True)
class Prompt:
    """The turns that are to be answered, and where they stood."""

    messages: tuple[Message, ...]
    origin: Origin

    def record(self, answer: Answer) -> dict[str, object]:
        """Return the row of the answers' file: a lone question as `prompt`, else `messages`."""
        asked: dict[str, object] = {
            "messages": [{"role": m.role, "content": m.content} for m in self.messages]
        }
        if len(self.messages) == 1:
            asked = {"prompt": self.messages[0].content}
        return asked | {
            "answer": answer.text,
            "finish_reason": answer.finish_reason,
            "num_tokens": answer.num_tokens,
        }


def read_prompts(path: str) -> list[Prompt]:
    """Read prompts from a data file, a folder or a pattern.

    Args:
        path: As the user wrote it. Rows hold `prompt`, `instruction` or `messages`; an answer
            beside it is passed over, so that a training file serves as well.

    Raises:
        DataError: A file or row can't be used; the message names file and line.
    """
    prompts: list[Prompt] = []
    for file in expand(path):
        for origin, row in read_rows(file, _refuse):
            try:
                prompts.append(Prompt(prompt_from_row(row), origin))
            except RowError as error:
                raise error.data_error(origin) from None
    return prompts


def _refuse(rejection: Rejection) -> NoReturn:
    mend = MENDS[rejection.reason]
    raise DataError(rejection.detail, where=str(rejection.origin), mend=mend)


def open_answers(out: str) -> Path:
    """Make sure that the answers can be written, before anything slow starts.

    Args:
        out: Path of the file; its folder is created.

    Returns:
        The path. `OUT.partial` lies beside it, empty.

    Raises:
        RunError: There is something of that name, or the place can't be written.
    """
    path = Path(out).expanduser()
    if path.exists():
        raise RunError(
            "the file for the answers is there already",
            where=str(path),
            mend="Remove it, or choose another --out.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path(path).write_bytes(b"")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def partial_path(out: Path) -> Path:
    """Return where answers gather until all are there."""
    return out.with_name(f"{out.name}.partial")


def write_answers(
    answering: AnsweringModel,
    prompts: Sequence[Prompt],
    out: Path,
    settings: GenerationSettings,
    on_answer: Callable[[Answer], None],
) -> None:
    """Answer prompts and write the answers in the prompts' order.

    Args:
        answering: The model.
        prompts: From `read_prompts`.
        out: From `open_answers`.
        settings: How to answer.
        on_answer: Told each answer as it comes, in any order.

    Raises:
        DataError: A prompt does not fit the context or its template refuses it: file and line.
        RunError: The disk is full.
    """
    rendered = [_render(answering, prompt, settings) for prompt in prompts]
    partial = partial_path(out)

    def keep(index: int, answer: Answer) -> None:
        try:
            append_jsonl(partial, prompts[index].record(answer))
        except OSError as error:
            raise _unwritable(partial, error) from error
        on_answer(answer)

    answers = generate_answers(
        answering.model,
        answering.tokenizer,
        rendered,
        settings,
        answering.stop_token_ids,
        keep,
    )
    pairs = zip(prompts, answers, strict=True)
    try:
        write_jsonl(out, (prompt.record(answer) for prompt, answer in pairs))
        partial.unlink()
    except OSError as error:
        raise _unwritable(out, error) from error


def _render(answering: AnsweringModel, prompt: Prompt, settings: GenerationSettings) -> list[int]:
    try:
        ids = answering.prompt_ids(prompt.messages)
    except DataError as error:
        raise DataError(error.problem, where=str(prompt.origin), mend=error.mend) from error
    room_for_answer(answering.model, len(ids), settings.max_new_tokens, str(prompt.origin))
    return ids


def _unwritable(path: Path, error: OSError) -> RunError:
    return RunError(
        f"the answers can't be written: {error.strerror or error}",
        where=str(path),
        mend="Make room, or choose another --out.",
    )
