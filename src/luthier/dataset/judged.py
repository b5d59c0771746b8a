"""Answers that are judged, to prepared rows: prompt | chosen | rejected.

In: records that rank two answers, or say of one whether it is wanted. Out: rows, each rendered as
supervised fine-tuning renders a prompt and its answer, with the prompt that both answers share
written once. A verdict's row has the answer to another prompt in the place of the rejected one
(`with_other_answers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from luthier.contracts.conversation import Conversation, Corpus, Message, Record, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.core.seeds import derive_seed
from luthier.corpus.load import load_judged
from luthier.dataset.rendering import Rendered, Renderer, stop_token_ids
from luthier.dataset.row_table import Pair, Row
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.shared_truncation import shorten_together
from luthier.dataset.side import (
    Report,
    RowKind,
    Side,
    Splits,
    describe_template,
    fill_side,
    rejected,
    write_out,
)
from luthier.dataset.transcript import Remark, Transcript

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class JudgedMaker:
    """Makes rows of records that rank two answers, or hold one with a verdict.

    Attributes:
        renderer: Tokenizer and template; it teaches no prompts.
        settings: What becomes of rows that are too long. `cutoff_len` bounds a prompt and one
            answer, which is what the model sees.
        skip_refused: Leave out records that the template refuses, instead of ending the run.
        progress: Called as the work goes on.
    """

    renderer: Renderer
    settings: DatasetSettings
    skip_refused: bool
    progress: Report

    def make(self, corpus: Corpus[Record]) -> Side:
        """Return the rows of a corpus, in its order.

        Raises:
            DataError: The template refuses a record, and `skip_refused` is off.
        """
        return fill_side(corpus, self._add, self.progress)

    def _add(self, records: Sequence[Record], side: Side) -> None:
        told = [(record, _conversations(record)) for record in records]
        self.renderer.foresee(conversation for _, each in told for conversation in each)
        written: list[tuple[Record, list[Transcript]]] = []
        for record, conversations in told:
            transcripts = self._transcripts(record, conversations)
            if isinstance(transcripts, Rejection):
                side.rejections.append(transcripts)
            else:
                written.append((record, transcripts))
        encoded = iter(self.renderer.encode([one for _, each in written for one in each]))
        for record, transcripts in written:
            row = self._row(record, [next(encoded) for _ in transcripts], side)
            if isinstance(row, Rejection):
                side.rejections.append(row)
            else:
                side.conversations.append(record)
                side.rows.append([row])

    def _transcripts(
        self, record: Record, conversations: Sequence[Conversation]
    ) -> list[Transcript] | Rejection:
        """Write the answers of a record out, each with the prompt before it."""
        flaw = _flaw(record)
        if flaw is not None:
            return rejected(conversations[-1], *flaw)
        transcripts: list[Transcript] = []
        for conversation in conversations:
            written = write_out(self.renderer, conversation, self.skip_refused)
            if isinstance(written, Rejection):
                return written
            if len(written) > 1:
                return _in_parts(conversation)
            transcripts += written
        return transcripts

    def _row(
        self, record: Record, groups: Sequence[Sequence[Rendered | Rejection]], side: Side
    ) -> Row | Rejection:
        rendered: list[Rendered] = []
        for group in groups:
            row = group[0]
            if isinstance(row, Rejection):
                return row
            if len(group) > 1:
                return _in_parts(row.transcript.conversation)
            rendered.append(row)
        answers = self._fit(rendered)
        if isinstance(answers, Rejection):
            return answers
        last = answers[-1].transcript.conversation
        if not all(any(answer.loss_weights) for answer in answers):
            return rejected(last, "no_supervised_token", "nothing of an answer is left to judge")
        if len(answers) == 2 and answers[0].input_ids == answers[1].input_ids:
            return rejected(last, "equal_sides", "cut or written out, both answers are the same")
        num_cut = sum(len(row.input_ids) for row in rendered) - sum(
            len(answer.input_ids) for answer in answers
        )
        if num_cut:
            side.num_cut += 1
            side.num_tokens_cut += num_cut
        for remark in frozenset[Remark]().union(*(row.transcript.remarks for row in answers)):
            side.remarks[remark].append(str(record.origin))
        return pair_row(record, *answers) if len(answers) == 2 else verdict_row(record, *answers)

    def _fit(self, rows: list[Rendered]) -> list[Rendered] | Rejection:
        """Bring the answers of a record under the length limit, with one prompt."""
        limit = self.settings.cutoff_len
        longest = max(rows, key=lambda row: len(row.input_ids))
        if len(longest.input_ids) <= limit:
            return rows
        if self.settings.on_long_row == "drop":
            detail = f"{len(longest.input_ids)} tokens, cutoff_len is {limit}"
            return rejected(longest.transcript.conversation, "too_long", detail)
        return shorten_together(rows, self.renderer, limit, self.settings.min_answer_share)


def pair_row(record: Record, chosen: Rendered, rejected: Rendered) -> Row:
    """Lay a prompt and its two answers end to end.

    Where the two have prompts of different tokens (a template or a tokenizer may look at the
    answer), the prompt ends where they part, and either answer begins with the rest of its own.

    Args:
        record: Where they come from.
        chosen: Prompt and better answer, as supervised fine-tuning would have them.
        rejected: Prompt and worse answer.
    """
    ids, labels = zip(_arrays(chosen), _arrays(rejected), strict=True)
    prompt = min(chosen.answer_starts[0], rejected.answer_starts[0])
    differs = np.flatnonzero(ids[0][:prompt] != ids[1][:prompt])
    prompt = int(differs[0]) if len(differs) else prompt
    return Row(
        np.concatenate([ids[0], ids[1][prompt:]]),
        np.concatenate([labels[0], labels[1][prompt:]]),
        None,
        str(record.origin),
        Pair(prompt, len(ids[0]) - prompt, record.weight, margin=record.margin),
    )


def verdict_row(record: Record, answer: Rendered) -> Row:
    """Return a prompt and an answer that is wanted or not; `with_other_answers` completes it."""
    ids, labels = _arrays(answer)
    prompt = answer.answer_starts[0]
    pair = Pair(prompt, len(ids) - prompt, record.weight, record.label)
    return Row(ids, labels, None, str(record.origin), pair)


def complete_verdicts(splits: Splits, cutoff_len: int, seed: int) -> Splits:
    """Put the answers to other prompts behind those with a verdict, split by split.

    Args:
        splits: Rows of `verdict_row`; those of `train` need both verdicts.
        cutoff_len: As for `with_other_answers`.
        seed: Draws the answers.

    Raises:
        DataError: All answers of `train` are wanted, or none is; or as `with_other_answers`.
    """
    _check_verdicts(splits["train"])
    return {name: with_other_answers(rows, cutoff_len, seed) for name, rows in splits.items()}


def _check_verdicts(rows: Sequence[Row]) -> None:
    verdicts = {row.pair.desirable for row in rows if row.pair is not None}
    if len(verdicts) == 1:
        what = "wanted" if verdicts == {True} else "unwanted"
        raise DataError(
            f"all {len(rows)} answers are {what}: KTO learns from the difference",
            where=f"{rows[0].origin} and others",
            mend="Add rows of the other label, or train on the wanted answers with stage: sft.",
        )


def with_other_answers(rows: Sequence[Row], cutoff_len: int, seed: int) -> list[Row]:
    """Put behind each judged answer the answer to another prompt.

    How probable a model finds answers to the wrong prompt is what KTO takes for the divergence from
    its reference (arXiv 2402.01306, section 4.1). Which answer stands with which prompt is drawn
    once, so that the reference's log-probabilities can be computed beforehand.

    Args:
        rows: Those of one split, as `verdict_row` made them.
        cutoff_len: Tokens of a prompt and an answer; the end of a longer answer is left out.
        seed: Draws the answers.

    Raises:
        DataError: All rows have the same prompt.
    """
    random = np.random.default_rng(derive_seed(seed, "other answers"))
    order = random.permutation(len(rows)).tolist()
    completed: dict[int, Row] = {}
    for place, number in enumerate(order):
        row = rows[number]
        others = (rows[other] for other in order[place + 1 :] + order[:place])
        other = next((other for other in others if not _same_prompt(row, other)), None)
        if other is None:
            raise DataError(
                f"all {len(rows)} rows have the same prompt: KTO needs answers to others",
                where=row.origin,
                mend="Add rows with other prompts.",
            )
        completed[number] = _with_answer(row, other, cutoff_len)
    return [completed[number] for number in range(len(rows))]


def make_judged_rows(
    corpus: Corpus[Record],
    tokenizer: PreTrainedTokenizerFast,
    settings: DatasetSettings,
    skip_refused: bool,
    progress: Report,
) -> Side:
    """Return the rows of a corpus of judged answers; arguments and errors as of `JudgedMaker`."""
    renderer = Renderer(
        tokenizer,
        train_on_prompt=False,
        mask_history=settings.mask_history,
        default_system=settings.default_system,
    )
    return JudgedMaker(renderer, settings, skip_refused, progress).make(corpus)


PAIRS = RowKind(
    load=partial(load_judged, kind="pairs"),
    make=make_judged_rows,
    describe=lambda tokenizer: {**describe_template(tokenizer), "rows": "pairs"},
    stop_token_ids=stop_token_ids,
    is_judged=True,
)
"""Two answers to one prompt, ranked: what preference stages and reward models learn from."""

VERDICTS = RowKind(
    load=partial(load_judged, kind="verdicts"),
    make=make_judged_rows,
    describe=lambda tokenizer: {**describe_template(tokenizer), "rows": "verdicts"},
    stop_token_ids=stop_token_ids,
    is_judged=True,
    complete=complete_verdicts,
)
"""Answers that are wanted or not, each by itself: what `stage: kto` learns from."""


def _conversations(record: Record) -> list[Conversation]:
    """Return a record's answers, each behind the prompt, which teaches nothing."""
    if record.chosen is not None and record.rejected is not None:
        prompt, answers = record.messages, [record.chosen, record.rejected]
    else:
        prompt, answers = record.messages[:-1], [record.messages[-1:]]
    told = tuple(replace(turn, weight=0.0) for turn in prompt)
    weight = 1.0 if record.weight else 0.0  # the row's weight scales the pair, not its tokens
    return [Conversation((*told, *answer), record.origin, weight) for answer in answers]


def _flaw(record: Record) -> tuple[str, str] | None:
    """Return the reason, and its detail, for which two answers can't be ranked."""
    if record.chosen is None or record.rejected is None:
        return None
    chosen, rejected = map(_said, (record.chosen, record.rejected))
    if chosen == rejected:
        return "equal_sides", "chosen and rejected are the same"
    if not any(words for _, words in rejected):
        return "empty_turn", "the rejected answer is blank"
    return None


def _said(turns: Sequence[Message]) -> list[tuple[str, list[str]]]:
    # White space alone is nothing to prefer one answer for.
    return [(turn.role, turn.content.split()) for turn in turns]


def _in_parts(conversation: Conversation) -> Rejection:
    detail = "the template rewrites earlier turns of this answer: it can't be judged as a whole"
    return rejected(conversation, "answer_in_parts", detail)


def _arrays(row: Rendered) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    ids = np.asarray(row.input_ids, dtype=np.int32)
    return ids, np.where(row.supervised, ids, np.int32(IGNORE_INDEX))


def _prompt(row: Row) -> npt.NDArray[np.int32]:
    assert row.pair is not None, "a row of a verdict has a prompt"
    return row.input_ids[: row.pair.prompt_length]


def _same_prompt(one: Row, other: Row) -> bool:
    return np.array_equal(_prompt(one), _prompt(other))


def _with_answer(row: Row, other: Row, cutoff_len: int) -> Row:
    start, room = len(_prompt(other)), cutoff_len - len(_prompt(row))
    answer = slice(start, start + room)
    return replace(
        row,
        input_ids=np.concatenate([row.input_ids, other.input_ids[answer]]),
        labels=np.concatenate([row.labels, other.labels[answer]]),
    )
