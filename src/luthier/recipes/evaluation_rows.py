"""The rows that a model is evaluated on: those of a file, or a run's own validation rows.

In: a file as `luthier train` takes it, or a run. Out: rows with their text, before any tokenizer:
each model renders them by its own template. A row without an answer ends the evaluation, by file
and line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luthier.contracts.conversation import Conversation, Message, Origin, Record
from luthier.core.errors import DataError, SettingsError
from luthier.core.hashing import hash_json
from luthier.corpus.bad_rows import RowError, raise_unskippable
from luthier.corpus.formats import find_record_layout, layout_finder, text_layout_finder
from luthier.corpus.layouts import Layout, RecordLayout, Row, TextLayout
from luthier.corpus.paths import expand
from luthier.corpus.readers.dispatch import read_rows
from luthier.corpus.readers.source import Source
from luthier.corpus.source_rows import source_rows
from luthier.corpus.sources import resolve_train, resolve_val
from luthier.corpus.unify import RowColumns, conversation_from_row, document_from_row
from luthier.recipes.data import prepare_data, settled_corpus
from luthier.recipes.run_config import RunConfig
from luthier.recipes.screen import Screen

_PART = re.compile(r" \(part \d+ of \d+\)$")


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """One row.

    Attributes:
        record: A conversation that ends with an answer, or a text.
        fields: The row as it stands in the data.
    """

    record: Conversation | Record
    fields: Mapping[str, Any]

    @property
    def origin(self) -> Origin:
        """Where it stands."""
        return self.record.origin

    @property
    def is_text(self) -> bool:
        """Whether it is a text without question and answer."""
        return isinstance(self.record, Record)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What the model is asked: all turns before the last answer."""
        return self.record.messages[:-1]

    @property
    def reference(self) -> str:
        """The last answer; of a text, nothing."""
        return "" if self.is_text else self.record.messages[-1].content


@dataclass(frozen=True, slots=True)
class EvaluationRows:
    """The rows of an evaluation.

    Attributes:
        rows: At least one.
        name: What the evaluation is called if nobody says otherwise.
        path: Where they are from, in words.
    """

    rows: Sequence[EvaluationRow]
    name: str
    path: str

    def sha256(self) -> str:
        """Return a hash of what the rows say, wherever they stand."""
        return hash_json([row.record.key() for row in self.rows])


def rows_of_file(path: str, num_rows: int | None) -> EvaluationRows:
    """Read the rows of a data file, a folder or a pattern.

    Args:
        path: As the user wrote it. Rows are of any format that training takes.
        num_rows: Take the first so many, at least 1; None: all.

    Raises:
        DataError: A file or row can't be used, or a file has no rows; file and line are named.
    """
    rows: list[EvaluationRow] = []
    for file in expand(path):
        for origin, fields in read_rows(file, raise_unskippable):
            if len(rows) == num_rows:
                break
            try:
                rows.append(_row(fields, origin))
            except RowError as error:
                raise error.data_error(origin) from None
    stem = Path(path).name.partition(".")[0]
    name = re.sub(r"[^\w-]+", "-", stem).strip("-") or "data"
    return EvaluationRows(rows, _limited(name, num_rows), path)


def rows_of_run(config: RunConfig, num_rows: int | None, screen: Screen) -> EvaluationRows:
    """Find the validation rows of a run, as its data stands today.

    Args:
        config: The run's settings.
        num_rows: Take the first so many; None: all.
        screen: Told what takes time.

    Raises:
        SettingsError: The run's stage learns from rows of another kind than answers and texts.
        DataError: The run has no validation rows, or its data can't be read.
    """
    stage = config.run.stage
    if stage not in ("sft", "pt"):
        raise SettingsError(
            f"the validation rows of stage: {stage} hold no single answer to measure",
            where="--data",
            mend="Name rows with answers: --data FILE",
        )
    prepared = prepare_data(config, screen).prepared
    if prepared.val is None:
        raise DataError(
            "the run has no validation rows",
            where=config.run.output_dir,
            mend="Name the rows to evaluate on: --data FILE",
        )
    wanted = dict.fromkeys(_PART.sub("", origin) for origin in prepared.val["origin"])
    found = _find_rows(config, wanted, screen)
    rows = [found[origin] for origin in wanted if origin in found][:num_rows]
    files = dict.fromkeys(row.origin.file for row in rows)
    return EvaluationRows(rows, _limited("validation", num_rows), ", ".join(files))


def _row(fields: Row, origin: Origin) -> EvaluationRow:
    layout = find_record_layout(fields)
    record: Conversation | Record
    if isinstance(layout, TextLayout) or (isinstance(layout, RecordLayout) and fields.get("text")):
        record = document_from_row(fields, origin, layout=layout)
    else:
        record = conversation_from_row(fields, origin, layout=layout)
        if not record.messages[-1].content.strip():
            raise RowError("no_answer", "the answer is blank: there is nothing to compare with")
    return EvaluationRow(record, fields)


def _find_rows(
    config: RunConfig, wanted: Mapping[str, None], screen: Screen
) -> dict[str, EvaluationRow]:
    """Return the rows of a run's sources that stand at some places, by place."""
    data, _ = settled_corpus(config, screen)
    is_text = config.run.stage == "pt"
    find = text_layout_finder if is_text else layout_finder
    read = document_from_row if is_text else conversation_from_row
    found: dict[str, EvaluationRow] = {}

    def keep(row: Row, origin: Origin, *, layout: Layout, columns: RowColumns) -> Any:
        record = read(row, origin, layout=layout, columns=columns)
        if str(record.origin) in wanted:
            found[str(record.origin)] = EvaluationRow(record, row)
        return record

    sources: Sequence[Source] = resolve_val(data) or resolve_train(data)
    for source in sources:
        layout_of: Callable[[Row], Layout] = find(source)
        for _ in source_rows(source, data, layout_of, keep):
            pass
    return found


def _limited(name: str, num_rows: int | None) -> str:
    return name if num_rows is None else f"{name}-{num_rows}"
