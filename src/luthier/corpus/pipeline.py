"""Steps in a row, each kept on disk by its content: what has not changed is not done again.

Comes in: columns in batches, and steps. Goes out: a folder of Parquet parts for each step, the rows
that it dropped beside them, and an account. Memory is bounded by the batch, and by the sketches of
steps that compare rows with each other.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep, Step, StepResult
from luthier.core.files import staged_folder, write_json
from luthier.core.hashing import hash_file, hash_json
from luthier.corpus.record import num_rows, read_parts, select, write_part

ACCOUNT = "step.json"
DROPPED = "dropped.parquet"
FORMAT = 1
"""Counts up whenever the same step and settings would leave something else on disk."""

Report = Callable[[str, int, int], None]
"""Called with the step's name, the rows done, and the rows there are (0: not known yet)."""

Part = tuple[StepResult, Columns]
"""What a step made of one batch, and the batch as it came: dropped rows are kept with content."""


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step and what its result depends on beside the rows.

    Attributes:
        step: What is done.
        settings: Its settings as plain values, and hashes of the files that it reads.
    """

    step: Step | GlobalStep
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepAccount:
    """What one step did; `step.json` of its folder.

    Attributes:
        name: The step.
        key: Hash of everything that its result depends on.
        rows_in: Rows that came.
        rows_out: Rows that it handed on.
        dropped: Rows that it dropped, by reason.
        counts: What it did to kept rows, by name.
        files: sha256 of each Parquet file, in order: the content of the result.
        seconds: How long it took when it was done.
    """

    name: str
    key: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    files: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A step's account, where its result lies, and whether an earlier run made it."""

    account: StepAccount
    folder: Path
    from_cache: bool


def run_steps(
    batches: Callable[[], Iterable[Part]],
    inputs_key: str,
    steps: Sequence[PlannedStep],
    root: Path,
    *,
    num_workers: int = 1,
    report: Report | None = None,
) -> list[StepOutcome]:
    """Run steps one after the other, each from the folder that the one before it left.

    Args:
        batches: Reads the rows, and accounts for those that can't be used; called only if they
            were not read before.
        inputs_key: Hash of what `batches` will read.
        steps: In order.
        root: Folder of all results.
        num_workers: Processes for steps that look at each row alone. The result is the same for
            any number.
        report: Told how far each step is.

    Returns:
        One outcome for reading and one for each step.

    Raises:
        OSError: The disk is full; results of finished steps stay and are used again.
    """
    tell = report or (lambda _name, _done, _total: None)
    key = hash_json([FORMAT, "read", inputs_key])
    outcomes = [_done(root, key) or _write(root, key, "read", batches(), 0, tell)]
    for planned in steps:
        before = outcomes[-1]
        key = hash_json([FORMAT, planned.step.name, before.account.key, dict(planned.settings)])
        outcomes.append(_done(root, key) or _work(root, key, planned, before, num_workers, tell))
    return outcomes


def _work(
    root: Path,
    key: str,
    planned: PlannedStep,
    before: StepOutcome,
    num_workers: int,
    report: Report,
) -> StepOutcome:
    step, rows_in = planned.step, before.account.rows_out
    if isinstance(step, GlobalStep):
        parts = _apply_global(step, before.folder)
    else:
        parts = _apply(step, before.folder, num_workers)
    return _write(root, key, step.name, parts, rows_in, report)


def _apply(step: Step, folder: Path, num_workers: int) -> Iterator[Part]:
    if num_workers == 1:
        for part in read_parts(folder):
            yield step(part), part
        return
    waiting: deque[tuple[Future[StepResult], Columns]] = deque()
    with ProcessPoolExecutor(num_workers) as pool:
        for part in read_parts(folder):
            waiting.append((pool.submit(step, part), part))
            # Only so many batches are in memory as keep the workers busy.
            if len(waiting) >= 2 * num_workers:
                future, before = waiting.popleft()
                yield future.result(), before
        for future, before in waiting:
            yield future.result(), before


def _apply_global(step: GlobalStep, folder: Path) -> Iterator[Part]:
    sketches: Columns = {}
    for part in read_parts(folder):
        for name, values in step.sketch(part).items():
            sketches.setdefault(name, []).extend(values)
    drops = {drop.id: drop for drop in step.decide(sketches)} if sketches else {}
    del sketches
    for part in read_parts(folder):
        gone = [drops[id_] for id_ in part["id"] if id_ in drops]
        kept = select(part, [id_ not in drops for id_ in part["id"]])
        yield StepResult(kept, gone), part


def _write(
    root: Path, key: str, name: str, parts: Iterable[Part], rows_in: int, report: Report
) -> StepOutcome:
    folder = root / key[:16]
    started_s = time.perf_counter()
    rows_out, dropped, counts = 0, Counter[str](), Counter[str]()
    with staged_folder(folder) as staging:
        gone: Columns = {}
        for number, (result, before) in enumerate(parts):
            write_part(result.columns, staging / f"part-{number:05}.parquet")
            rows_out += num_rows(result.columns)
            counts.update(result.counts)
            dropped.update(drop.reason for drop in result.drops)
            _keep_dropped(gone, result.drops, before)
            report(name, rows_out + dropped.total(), rows_in)
        if gone:
            write_part(gone, staging / DROPPED)
        account = StepAccount(
            name=name,
            key=key,
            rows_in=rows_in or rows_out + dropped.total(),
            rows_out=rows_out,
            dropped=dict(dropped.most_common()),
            counts=dict(counts.most_common()),
            files=_hashes(staging),
            seconds=round(time.perf_counter() - started_s, 3),
        )
        write_json(staging / ACCOUNT, asdict(account))
    return StepOutcome(account, folder, from_cache=False)


def _keep_dropped(gone: Columns, drops: Sequence[Drop], before: Columns) -> None:
    numbers = {id_: number for number, id_ in enumerate(before["id"])} if drops else {}
    for drop in drops:
        row = {name: values[numbers[drop.id]] for name, values in before.items()}
        for name, value in (row | asdict(drop)).items():
            gone.setdefault(name, []).append(value)


def _done(root: Path, key: str) -> StepOutcome | None:
    """Return an earlier result, if it is whole: every file as it was when the step ended."""
    folder = root / key[:16]
    try:
        account = StepAccount(**json.loads((folder / ACCOUNT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if account.key != key or _hashes(folder) != account.files:
        return None
    return StepOutcome(account, folder, from_cache=True)


def _hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(folder.glob("*.parquet"))}
