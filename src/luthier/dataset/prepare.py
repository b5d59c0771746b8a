"""From settings to rows on disk, once: the same inputs are never prepared twice.

In: settings of corpus and dataset, a tokenizer with its template set, a seed. Out: `Prepared`.
What becomes of each row is accounted for in its manifest: read, dropped and why, cut and by how
much, on which side of the split.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier import __version__
from luthier.contracts.conversation import Corpus, Rejection
from luthier.contracts.notice import Notice
from luthier.core.clock import now
from luthier.core.errors import DataError
from luthier.core.hashing import hash_json, hash_text
from luthier.corpus.load import check_tasks
from luthier.corpus.overlap import overlapping
from luthier.corpus.settings import CorpusSettings
from luthier.corpus.sources import Source, resolve_train, resolve_val
from luthier.corpus.split import length_strata, sample_rows, split_rows
from luthier.dataset.checks import (
    check_rows,
    overlap_notices,
    remark_notices,
    unused_notices,
)
from luthier.dataset.inputs import describe_inputs, describe_work
from luthier.dataset.prepared import (
    Prepared,
    disk_errors,
    prepared_root,
    read_prepared,
    write_prepared,
)
from luthier.dataset.row_table import describe, to_dataset
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import CONVERSATIONS, Report, RowKind, Side
from luthier.dataset.transcript import Remark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def prepare(
    corpus_settings: CorpusSettings,
    dataset_settings: DatasetSettings,
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    notices: Sequence[Notice] = (),
    progress: Report | None = None,
    kind: RowKind = CONVERSATIONS,
) -> Prepared:
    """Read, render, cut, split and store the data of a run, or find it prepared.

    Args:
        corpus_settings: Which files and rows, which split.
        dataset_settings: Mask, length and where prepared data is kept.
        tokenizer: With its chat template set (`templates.resolve_template`), where rows of the
            kind need one.
        seed: Draws samples and the split.
        notices: What resolving the template had to say; handed on.
        progress: Called as the work goes on.
        kind: How the rows of the run's stage come about.

    Returns:
        The data, memory-mapped, with its manifest.

    Raises:
        SettingsError: The settings name no data, or leave no rows for one side.
        DataError: A file or row can't be used, or no row is left.
        LuthierError: The disk is full or the folder closed.
    """
    progress = progress or (lambda _stage, _done, _total: None)
    train_sources = resolve_train(corpus_settings, any_kind=kind.is_judged)
    val_sources = resolve_val(corpus_settings, any_kind=kind.is_judged)
    work = {
        **describe_work(corpus_settings, dataset_settings, tokenizer, seed, kind),
        "inputs": {"train": describe_inputs(train_sources), "val": describe_inputs(val_sources)},
    }
    key = hash_json(work)
    root = prepared_root(dataset_settings.prepared_dir)
    folder = root / key[:16]
    with _only_one(root, folder.name, progress):
        found = None if dataset_settings.overwrite_cache else read_prepared(folder, key)
        if found is None:
            job = _Job(corpus_settings, dataset_settings, tokenizer, seed, progress, kind)
            with tokenizer_threads(dataset_settings.preprocessing_num_workers):
                job.run(train_sources, val_sources, folder, {"key": key, **work})
            written = read_prepared(folder, key)
            assert written is not None, "what was just written can be read"
            found = replace(written, from_cache=False)
    return replace(found, notices=(*notices, *found.notices))


@dataclass(frozen=True, slots=True)
class _Halves:
    """Both sides, and which conversations of each are taken.

    Without a `val_file` both sides are one, and the split draws conversations, not rows: those of
    one conversation never part.
    """

    train: Side
    val: Side
    train_indexes: list[int]
    val_indexes: list[int]

    def sides(self) -> list[Side]:
        return [self.train] if self.val is self.train else [self.train, self.val]


@dataclass(frozen=True, slots=True)
class _Job:
    """One preparation."""

    corpus_settings: CorpusSettings
    dataset_settings: DatasetSettings
    tokenizer: PreTrainedTokenizerFast
    seed: int
    progress: Report
    kind: RowKind

    def run(
        self,
        train_sources: Sequence[Source],
        val_sources: Sequence[Source],
        folder: Path,
        work: dict[str, Any],
    ) -> None:
        """Prepare both splits and write them to the folder."""
        halves = self._halves(train_sources, val_sources)
        splits = {"train": halves.train.rows_of(halves.train_indexes)}
        if halves.val_indexes:
            splits["val"] = halves.val.rows_of(halves.val_indexes)
        splits = self.kind.complete(splits, self.dataset_settings.cutoff_len, self.seed)
        every = [row for rows in splits.values() for row in rows]
        with_weights = any(row.is_weighted for row in every)
        tables = {
            name: to_dataset(rows, with_weights=with_weights) for name, rows in splits.items()
        }
        copied = _overlap(halves)
        warnings = [
            *self._warnings(halves.sides(), tables),
            *overlap_notices(copied, len(halves.val_indexes)),
        ]
        manifest = {
            **work,
            "luthier": __version__,
            "created": now(),
            **_hash_of_template(work),
            "counts": {**_counts(halves.sides()), "train_val_overlap": len(copied)},
            "splits": {name: describe(rows) for name, rows in splits.items()},
            "warnings": [notice.as_json() for notice in warnings],
        }
        rejections = [rejection for side in halves.sides() for rejection in side.rejections]
        self.progress("writing", 0, 1)
        write_prepared(folder, tables, rejections, manifest, sum(r.num_bytes() for r in every))
        self.progress("writing", 1, 1)

    def _halves(self, train_sources: Sequence[Source], val_sources: Sequence[Source]) -> _Halves:
        settings = self.corpus_settings
        train = self._side(train_sources, is_train=True)
        indexes = list(range(len(train.rows)))
        if val_sources:
            val = self._side(val_sources, is_train=False)
            return _Halves(train, val, indexes, list(range(len(val.rows))))
        if settings.val_size == 0:
            return _Halves(train, train, indexes, [])
        strata: Sequence[str | int]
        if settings.stratify_by == "length":
            strata = length_strata([sum(len(row.input_ids) for row in rows) for rows in train.rows])
        else:
            strata = [conversation.category or "" for conversation in train.conversations]
        split = split_rows(train.keys(indexes), strata, settings.val_size, self.seed)
        return _Halves(train, train, split.train, split.val)

    def _side(self, sources: Sequence[Source], *, is_train: bool) -> Side:
        self.progress("reading", 0, 1)
        corpus = self.kind.load(sources, self.corpus_settings, seed=self.seed)
        self.progress("reading", 1, 1)
        if is_train:
            check_tasks(corpus, self.corpus_settings)
            self._sample(corpus)
        skip_refused = self.corpus_settings.on_bad_row == "skip"
        side = self.kind.make(
            corpus, self.tokenizer, self.dataset_settings, skip_refused, self.progress
        )
        if not side.rows:
            raise _nothing_left(side, [source.label for source in sources])
        return side

    def _sample(self, corpus: Corpus[Any]) -> None:
        """Keep `max_samples` of the conversations, and account for the others."""
        limit = self.corpus_settings.max_samples
        if limit is None or len(corpus.conversations) <= limit:
            return
        every = corpus.conversations
        chosen = sample_rows([row.key() for row in every], limit, self.seed)
        corpus.conversations = [every[i] for i in chosen]
        corpus.rejections.extend(
            Rejection(every[i].origin, "not_sampled", f"max_samples is {limit}")
            for i in sorted(set(range(len(every))) - set(chosen))
        )

    def _warnings(self, sides: Sequence[Side], tables: dict[str, Any]) -> list[Notice]:
        remarks: defaultdict[Remark, list[str]] = defaultdict(list)
        for side in sides:
            for remark, origins in side.remarks.items():
                remarks[remark] += origins
        warnings = remark_notices(remarks, sum(len(table) for table in tables.values()))
        unused = sum((side.unused for side in sides), Counter[str]())
        warnings += unused_notices(unused, sum(side.num_read for side in sides))
        num_cut = sum(side.num_cut + side.num_continued for side in sides)
        bos: Any = self.tokenizer.bos_token_id
        ends = self.kind.stop_token_ids(self.tokenizer)
        for table in tables.values():
            warnings += check_rows(
                table, bos, ends, num_cut=num_cut, may_be_empty=not self.kind.is_taught
            )
        return warnings


@contextmanager
def tokenizer_threads(num_threads: int | None) -> Generator[None]:
    """Let the tokenizer work in so many threads; None leaves the choice to the environment.

    The library reads these variables; the number counts from its first use in a process on.
    """
    names = ("TOKENIZERS_PARALLELISM", "RAYON_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    if num_threads is not None:
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if num_threads > 1 else "false"
        os.environ["RAYON_NUM_THREADS"] = str(num_threads)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _only_one(root: Path, name: str, progress: Report) -> Generator[None]:
    """Let one process at a time work on one key; the others then find its work done.

    The lock is the system's and ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(root / f"{name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress("waiting for another process that prepares the same data", 0, 1)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _overlap(halves: _Halves) -> list[str]:
    """Return the origins of validation conversations that stand in the training data too."""
    train = halves.train.keys(halves.train_indexes)
    val = halves.val.keys(halves.val_indexes)
    return [
        str(halves.val.conversations[halves.val_indexes[i]].origin) for i in overlapping(train, val)
    ]


def _counts(sides: Sequence[Side]) -> dict[str, Any]:
    dropped = Counter(rejection.reason for side in sides for rejection in side.rejections)
    return {
        "rows_read": sum(side.num_read for side in sides),
        "conversations": sum(len(side.conversations) for side in sides),
        "dropped": dict(dropped.most_common()),
        "truncated_rows": sum(side.num_cut for side in sides),
        "truncated_tokens": sum(side.num_tokens_cut for side in sides),
        "continued_rows": sum(side.num_continued for side in sides),
        "turn_by_turn_rows": sum(len(side.remarks["turn_by_turn"]) for side in sides),
    }


def _hash_of_template(work: dict[str, Any]) -> dict[str, str]:
    return {"template_sha256": hash_text(work["template"])} if "template" in work else {}


def _nothing_left(side: Side, names: Sequence[str]) -> DataError:
    dropped = Counter(rejection.reason for rejection in side.rejections)
    listed = ", ".join(f"{count} {reason}" for reason, count in dropped.most_common())
    last = side.rejections[-1]
    return DataError(
        f"none of the {side.num_read} rows is left to train on: {listed}",
        where=", ".join(names),
        mend=f"For example {last.origin}: {last.detail}.",
    )
