"""Prompts to prepared rows, for a stage in which the model itself answers.

In: records whose turns end with the user. Out: rows of the ids that ask for an answer, which teach
nothing by themselves, each with what answers to it are judged by. A prompt over `cutoff_len` is
left out: cut, it would be another question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from luthier.contracts.conversation import Corpus, Record, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import DataError
from luthier.corpus.load import load_questions
from luthier.dataset.rendering import Renderer, stop_token_ids
from luthier.dataset.row_table import Row
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import (
    Report,
    RowKind,
    Side,
    describe_template,
    fill_side,
    rejected,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class PromptMaker:
    """Makes rows of prompts.

    Attributes:
        renderer: Tokenizer and template.
        cutoff_len: Tokens that a prompt may have; its answer comes behind them.
        skip_refused: Leave out prompts that the template refuses, instead of ending the run.
        progress: Called as the work goes on.
    """

    renderer: Renderer
    cutoff_len: int
    skip_refused: bool
    progress: Report

    def make(self, corpus: Corpus[Record]) -> Side:
        """Return the rows of a corpus, in its order.

        Raises:
            DataError: The template refuses a prompt, and `skip_refused` is off.
        """
        return fill_side(corpus, self._add, self.progress)

    def _add(self, records: Sequence[Record], side: Side) -> None:
        self.renderer.template.foresee(
            (self.renderer.with_system(record.messages), True, False) for record in records
        )
        for record in records:
            made = self._row(record)
            if isinstance(made, Rejection):
                side.rejections.append(made)
            else:
                side.conversations.append(record)
                side.rows.append([made])

    def _row(self, record: Record) -> Row | Rejection:
        try:
            ids = self.renderer.prompt_ids(record.messages)
        except DataError as error:
            if not self.skip_refused:
                mend = "Mend the row, or set on_bad_row: skip to leave such rows out."
                raise DataError(error.problem, where=str(record.origin), mend=mend) from error
            return rejected(record, "template_refused", error.problem)
        if len(ids) > self.cutoff_len:
            detail = f"the prompt has {len(ids)} tokens, cutoff_len is {self.cutoff_len}"
            return rejected(record, "too_long", detail)
        input_ids = np.asarray(ids, dtype=np.int32)
        labels = np.full_like(input_ids, IGNORE_INDEX)
        return Row(input_ids, labels, None, str(record.origin), question=record.question)


def make_prompt_rows(
    corpus: Corpus[Record],
    tokenizer: PreTrainedTokenizerFast,
    settings: DatasetSettings,
    skip_refused: bool,
    progress: Report,
) -> Side:
    """Return the rows of a corpus of prompts; arguments and errors as of `PromptMaker`."""
    renderer = Renderer(tokenizer, default_system=settings.default_system)
    return PromptMaker(renderer, settings.cutoff_len, skip_refused, progress).make(corpus)


PROMPTS = RowKind(
    load=load_questions,
    make=make_prompt_rows,
    describe=lambda tokenizer: {**describe_template(tokenizer), "rows": "prompts"},
    stop_token_ids=stop_token_ids,
    is_judged=True,
    is_taught=False,
)
"""Prompts that the model answers itself: what `stage: grpo` learns from."""
