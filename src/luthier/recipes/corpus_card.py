"""Dropped rows for people to look at: some of each reason, beside what they duplicate.

In: the outcomes of steps. Out: texts that are safe to show: personal data in them is redacted, for
a row may have been dropped before the step `pii` saw it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from luthier.contracts.corpus_step import Columns
from luthier.corpus.clean import Cleaned
from luthier.corpus.parts import part_paths, read_part
from luthier.corpus.pipeline import dropped_paths
from luthier.corpus.steps.pii import Pii
from luthier.corpus.text.fields import num_rows

SAMPLES = 20
_CHARS = 20_000


def sampled_drops(cleaned: Cleaned) -> dict[str, list[dict[str, Any]]]:
    """Return up to 20 dropped rows for each reason, as the data card takes them.

    Raises:
        MissingExtraError: The extra `corpus` is not installed.
    """
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    rows: dict[str, Columns] = {}
    for outcome in cleaned.outcomes:
        if not outcome.account.dropped:
            continue
        for path in dropped_paths(outcome.folder):
            columns = read_part(path)
            for row in range(num_rows(columns)):
                reason = columns["reason"][row]
                if len(found[reason]) < SAMPLES:
                    found[reason].append({"step": outcome.account.name, **_facts(columns, row)})
                    rows[columns["id"][row]] = _one(columns, row)
    matched = {s["matched_id"] for some in found.values() for s in some if s["matched_id"]}
    rows |= rows_in(part_paths(cleaned.outcomes[0].folder), matched - rows.keys())
    texts = {name: row_text(columns) for name, columns in redacted(rows).items()}
    for sample in (sample for some in found.values() for sample in some):
        # The detail of a row that could not be read quotes a piece of it.
        told = {"id": [sample["id"]], "text": [sample["detail"]]}
        sample["detail"] = redacted({"": told})[""]["text"][0]
        sample["text"] = texts[sample["id"]]
        sample["matched_text"] = texts.get(sample["matched_id"])
    return dict(found)


def rows_in(paths: Iterable[Path], ids: Set[str]) -> dict[str, Columns]:
    """Return some rows of Parquet files by their ids, each as columns of one row."""
    import pyarrow.parquet as pq

    found: dict[str, Columns] = {}
    for path in paths:
        if len(found) == len(ids):
            break
        with pq.ParquetFile(path) as file:
            here = file.read(columns=["id"]).column(0).to_pylist()
        places = [at for at, name in enumerate(here) if name in ids]
        if places:
            columns = read_part(path)
            found |= {here[at]: _one(columns, at) for at in places}
    return found


def redacted(rows: Mapping[str, Columns]) -> dict[str, Columns]:
    """Return rows with personal data replaced by placeholders.

    Raises:
        MissingExtraError: The extra `corpus` is not installed.
    """
    pii = Pii()
    return {name: pii(columns).columns for name, columns in rows.items()}


def row_text(columns: Columns) -> str:
    """Return the one row of some columns as text: its turns, or its document."""
    turns = [
        *(("", turn) for turn in columns["messages"][0] or ()),
        *(("chosen ", turn) for turn in columns["chosen"][0] or ()),
        *(("rejected ", turn) for turn in columns["rejected"][0] or ()),
    ]
    parts = [f"{side}{turn['role']}: {turn['content'] or ''}" for side, turn in turns]
    if columns["text"][0]:
        parts.append(columns["text"][0])
    text = "\n".join(parts)
    return text if len(text) <= _CHARS else f"{text[:_CHARS]}… ({len(text):,} characters)"


def _facts(columns: Columns, row: int) -> dict[str, Any]:
    names = ("id", "origin", "reason", "detail", "matched_id", "score")
    return {name: columns[name][row] for name in names}


def _one(columns: Columns, row: int) -> Columns:
    return {name: [values[row]] for name, values in columns.items()}
