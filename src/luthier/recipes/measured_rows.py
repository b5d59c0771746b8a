"""The rows of an evaluation as one model sees them: what it is asked, what its loss is taken of.

In: rows of text, a loaded model. Out: ids for each row, by its number; and each row that this model
can't take, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from luthier.contracts.conversation import Conversation, Corpus, Record
from luthier.core.errors import DataError, ModelError
from luthier.dataset.documents import make_document_rows
from luthier.dataset.rendering import Rendered, Renderer
from luthier.dataset.row_table import Row
from luthier.dataset.settings import DatasetSettings
from luthier.recipes.evaluated_model import EvaluatedModel
from luthier.recipes.evaluation_rows import EvaluationRow

WINDOW = 2048
"""Tokens of a text that are looked at together; what is longer goes on in the next window. The same
for all models, where their context is that long: more context makes a text easier."""


@dataclass(frozen=True, slots=True)
class LossRow:
    """A row that a loss is taken of.

    Attributes:
        number: Of the row that it belongs to; a row may have several.
        input_ids: Its tokens.
        labels: Aligned; -100 where a token carries no loss.
        num_bytes: Bytes of the text that the others stand for.
    """

    number: int
    input_ids: Sequence[int]
    labels: Sequence[int]
    num_bytes: int

    def columns(self) -> dict[str, Any]:
        """Return it as batches take it."""
        return {"input_ids": self.input_ids, "labels": self.labels}

    @property
    def num_tokens(self) -> int:
        """How many tokens carry loss."""
        return sum(label >= 0 for label in self.labels)


@dataclass(slots=True)
class Seen:
    """What a model is given.

    Attributes:
        loss_rows: For the perplexity.
        prompts: Ids of what is asked, by the number of the row.
        left_out: Why a row is missing, by its number.
    """

    loss_rows: list[LossRow] = field(default_factory=list[LossRow])
    prompts: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    left_out: dict[int, str] = field(default_factory=dict[int, str])


def rows_for_loss(model: EvaluatedModel, rows: Sequence[EvaluationRow]) -> Seen:
    """Return the rows that the loss is taken of: of conversations the answers, of texts all.

    Args:
        model: Its template, tokenizer and context decide.
        rows: Of the evaluation.

    Raises:
        ModelError: There are conversations, and the model has no chat template; or it names no
            token that ends a text.
    """
    seen = Seen()
    texts = {number: row.record for number, row in enumerate(rows) if row.is_text}
    if texts:
        _add_texts(model, texts, seen)
    for number, row in enumerate(rows):
        if isinstance(row.record, Conversation):
            _add_answers(model, number, row.record, seen)
    return seen


def rows_for_answers(model: EvaluatedModel, rows: Sequence[EvaluationRow]) -> Seen:
    """Return what the model is asked: all turns of a row before its last answer.

    Args:
        model: Its template and context decide.
        rows: Of the evaluation; none is a text.

    Raises:
        ModelError: The model has no chat template.
    """
    seen, renderer = Seen(), needed_renderer(model)
    for number, row in enumerate(rows):
        try:
            ids = renderer.prompt_ids(row.prompt)
        except DataError as error:
            seen.left_out[number] = error.problem
            continue
        if model.context is not None and len(ids) >= model.context:
            seen.left_out[number] = (
                f"its prompt has {len(ids):,} tokens, the model's context is {model.context:,}"
            )
            continue
        seen.prompts[number] = ids
    return seen


def needed_renderer(model: EvaluatedModel) -> Renderer:
    """Return what renders conversations for a model.

    Raises:
        ModelError: It has no chat template.
    """
    if model.renderer is None:
        raise ModelError(
            "the model has no chat template: it is a base model, which continues texts",
            where=model.name,
            mend='Evaluate it on rows of plain text, {"text": "..."}, or fine-tune it first.',
        )
    return model.renderer


def _add_answers(
    model: EvaluatedModel, number: int, conversation: Conversation, seen: Seen
) -> None:
    renderer = needed_renderer(model)
    try:
        rendered = renderer.render(conversation)
    except DataError as error:
        seen.left_out[number] = error.problem
        return
    longest = max((len(row.input_ids) for row in rendered), default=0)
    if model.context is not None and longest > model.context:
        seen.left_out[number] = (
            f"it has {longest:,} tokens, the model's context is {model.context:,}"
        )
    elif not any(any(row.supervised) for row in rendered):
        seen.left_out[number] = "its answers have weight 0"
    else:
        seen.loss_rows += [
            LossRow(number, row.input_ids, row.labels, _num_bytes(row, renderer))
            for row in rendered
        ]


def _num_bytes(row: Rendered, renderer: Renderer) -> int:
    """Return the bytes of what a row teaches, without the tokens that end its answers."""
    text, control_ids = row.transcript.text, renderer.encoder.control_ids
    return sum(
        len(text[start:end].encode())
        for id_, is_taught, (start, end) in zip(
            row.input_ids, row.supervised, row.char_spans(), strict=True
        )
        if is_taught and id_ not in control_ids
    )


def _add_texts(model: EvaluatedModel, texts: dict[int, Any], seen: Seen) -> None:
    window = min(WINDOW, model.context or WINDOW)
    numbers = {id(record): number for number, record in texts.items()}
    side = make_document_rows(
        Corpus[Record](conversations=list(texts.values())),
        model.tokenizer,
        DatasetSettings(cutoff_len=window),
        skip_refused=False,
        progress=lambda _what, _done, _total: None,
    )
    for record, parts in zip(side.conversations, side.rows, strict=True):
        seen.loss_rows += [_loss_row(numbers[id(record)], part) for part in parts]
    places = {record.origin: number for number, record in texts.items()}
    for rejection in side.rejections:
        seen.left_out[places[rejection.origin]] = rejection.detail


def _loss_row(number: int, row: Row) -> LossRow:
    return LossRow(number, row.input_ids.tolist(), row.labels.tolist(), row.text_bytes or 0)
