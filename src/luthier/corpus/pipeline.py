"""Steps in a row, each kept on disk by its content: what has not changed is not done again.

Comes in: columns in batches, and steps. Goes out: a folder of Parquet parts for each step, the rows
that it dropped beside them, and an account. Memory is bounded by the batch, and by the sketches of
steps that compare rows with each other.

    <root>/<key>/part-00000.parquet      the rows that a step handed on
    <root>/<key>/dropped-00000.parquet   those of the same batch that it did not, with the reason
    <root>/<key>/step.json               the account
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep, Step, StepResult
from luthier.core.files import staged_folder, write_json
from luthier.core.hashing import hash_file, hash_json
from luthier.corpus.parts import part_paths, read_part, read_table, write_table
from luthier.corpus.record import table_after, to_table
from luthier.corpus.runners import InProcess, Runner

if TYPE_CHECKING:
    import pyarrow as pa

ACCOUNT = "step.json"
READ = "read"
"""What reading is called among the steps."""

FORMAT = 5
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
        changed: Columns of which a kept row has another value than it came with.
        files: sha256 of each Parquet file, in order: the content of the result.
        seconds: How long it took when it was done.
    """

    name: str
    key: str
    rows_in: int
    rows_out: int
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    counts: dict[str, int] = field(default_factory=dict[str, int])
    changed: list[str] = field(default_factory=list[str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A step's account, where its result lies, and whether an earlier run made it.

    Attributes:
        account: What it did.
        folder: Its result.
        from_cache: Whether it was there already.
        sketches: Of those that a step that compares rows has made now, the ones to be kept: by
            name, and by the id of the row.
    """

    account: StepAccount
    folder: Path
    from_cache: bool
    sketches: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])


@dataclass(frozen=True, slots=True)
class PartAccount:
    """What became of one batch: the account's part of it."""

    rows_out: int
    dropped: Counter[str]
    counts: Counter[str]
    changed: list[str]
    files: dict[str, str]


def run_steps(
    batches: Callable[[], Iterable[Part]],
    inputs_key: str,
    steps: Sequence[PlannedStep],
    root: Path,
    *,
    runner: Runner | None = None,
    report: Report | None = None,
    keep_sketches: Sequence[str] = (),
) -> list[StepOutcome]:
    """Run steps one after the other, each from the folder that the one before it left.

    Args:
        batches: Reads the rows, and accounts for those that can't be used; called only if they
            were not read before.
        inputs_key: Hash of what `batches` will read.
        steps: In order.
        root: Folder of all results. Workers on other machines must see it under the same path.
        runner: Who works on the batches. The result is the same for any.
        report: Told how far each step is.
        keep_sketches: Names of sketches that outcomes are to hold.

    Returns:
        One outcome for reading and one for each step.

    Raises:
        OSError: The disk is full; results of finished steps stay and are used again.
    """
    runner, tell = runner or InProcess(), report or (lambda _name, _done, _total: None)
    key = hash_json([FORMAT, READ, inputs_key])
    outcomes = [_done(root, key) or _read(root, key, batches, tell)]
    for planned in steps:
        before = outcomes[-1]
        key = hash_json([FORMAT, planned.step.name, before.account.key, dict(planned.settings)])
        outcome = _done(root, key)
        outcomes.append(
            outcome or _work(root, key, planned.step, before, runner, tell, keep_sketches)
        )
    return outcomes


def dropped_paths(folder: Path) -> list[Path]:
    """Return the files of the rows that a step dropped, in order."""
    return sorted(folder.glob("dropped-*.parquet"))


def _read(
    root: Path, key: str, batches: Callable[[], Iterable[Part]], report: Report
) -> StepOutcome:
    def accounts(staging: Path) -> Iterator[PartAccount]:
        for number, (result, before) in enumerate(batches()):
            yield _leave(result, before, to_table(before), staging, number)

    return _write(root, key, READ, accounts, 0, report)


def _work(
    root: Path,
    key: str,
    step: Step | GlobalStep,
    before: StepOutcome,
    runner: Runner,
    report: Report,
    keep_sketches: Sequence[str],
) -> StepOutcome:
    paths = part_paths(before.folder)
    report(step.name, 0, before.account.rows_out)
    kept: dict[str, dict[str, Any]] = {}

    def accounts(staging: Path) -> Iterator[PartAccount]:
        if not isinstance(step, GlobalStep):
            return runner.map(_ApplyStep(step, staging), list(enumerate(paths)))
        parts, sketches = _sketches(step, paths, runner, before.account.rows_out, report)
        for name in sketches.keys() & set(keep_sketches):
            kept[name] = dict(zip(sketches["id"], sketches[name], strict=True))
        drops = _decide(step, parts, sketches, report)
        return runner.map(_ApplyDrops(staging), list(zip(count(), paths, drops, strict=False)))

    outcome = _write(root, key, step.name, accounts, before.account.rows_out, report)
    return replace(outcome, sketches=kept)


@dataclass(frozen=True, slots=True)
class _ApplyStep:
    """Work of one part: through the step, from file to file."""

    step: Step
    folder: Path

    def __call__(self, item: tuple[int, Path]) -> PartAccount:
        number, path = item
        table = read_table(path)
        before = table.to_pydict()
        return _leave(self.step(before), before, table, self.folder, number)


@dataclass(frozen=True, slots=True)
class _ApplyDrops:
    """Work of one part: without the rows that were decided to go."""

    folder: Path

    def __call__(self, item: tuple[int, Path, list[Drop]]) -> PartAccount:
        number, path, drops = item
        table = read_table(path)
        before: Columns = {"id": table.column("id").to_pylist()}
        gone = {drop.id for drop in drops}
        kept = table.filter([id_ not in gone for id_ in before["id"]]) if gone else table
        files = _write_files(kept, _with_reasons(drops, before, table), self.folder, number)
        return PartAccount(kept.num_rows, _reasons(drops), Counter(), [], files)


@dataclass(frozen=True, slots=True)
class _Sketch:
    """Work of one part: what a global step needs to know of it."""

    step: GlobalStep

    def __call__(self, path: Path) -> Columns:
        return self.step.sketch(read_part(path))


def _sketches(
    step: GlobalStep, paths: Sequence[Path], runner: Runner, num_all: int, report: Report
) -> tuple[list[Sequence[str]], Columns]:
    """Return the ids of each part, and the sketches of all."""
    sketches: Columns = {}
    parts: list[Sequence[str]] = []
    done = 0
    for sketch in runner.map(_Sketch(step), paths):
        parts.append(sketch["id"])
        for name, values in sketch.items():
            sketches.setdefault(name, []).extend(values)
        done += len(sketch["id"])
        report(f"{step.name}: looking", done, num_all)
    return parts, sketches


def _decide(
    step: GlobalStep, parts: Sequence[Sequence[str]], sketches: Columns, report: Report
) -> list[list[Drop]]:
    """Return for each part the drops of its rows, in the order of the rows."""
    report(f"{step.name}: comparing", 0, 0)
    drops = {drop.id: drop for drop in step.decide(sketches)} if any(parts) else {}
    return [[drops[id_] for id_ in ids if id_ in drops] for ids in parts]


def _leave(
    result: StepResult, before: Columns, table: pa.Table, folder: Path, number: int
) -> PartAccount:
    """Write what became of one batch, which came as columns and as a table."""
    kept, changed = table_after(result.columns, before, table)
    files = _write_files(kept, _with_reasons(result.drops, before, table), folder, number)
    return PartAccount(kept.num_rows, _reasons(result.drops), result.counts, changed, files)


def _write_files(
    kept: pa.Table, dropped: pa.Table | None, folder: Path, number: int
) -> dict[str, str]:
    """Write the rows of one batch, and return the hash of each file."""
    files: dict[str, str] = {}
    for name, table in (("part", kept), ("dropped", dropped)):
        if table is not None:
            path = folder / f"{name}-{number:05}.parquet"
            write_table(table, path)
            files[path.name] = hash_file(path)
    return files


def _reasons(drops: Sequence[Drop]) -> Counter[str]:
    return Counter(drop.reason for drop in drops)


def _with_reasons(drops: Sequence[Drop], before: Columns, table: pa.Table) -> pa.Table | None:
    """Return the dropped rows of a batch with their reasons; None where there are none."""
    import pyarrow as pa

    if not drops:
        return None
    numbers = {id_: number for number, id_ in enumerate(before["id"])}
    gone = table.take([numbers[drop.id] for drop in drops])
    reasons = {
        name: pa.array([getattr(drop, name) for drop in drops])
        for name in ("reason", "detail", "matched_id", "score")
    }
    return pa.table({**dict(zip(gone.column_names, gone.columns, strict=True)), **reasons})


def _write(
    root: Path,
    key: str,
    name: str,
    accounts: Callable[[Path], Iterator[PartAccount]],
    rows_in: int,
    report: Report,
) -> StepOutcome:
    folder = root / key[:16]
    started_s = time.perf_counter()
    rows_out, dropped, counts = 0, Counter[str](), Counter[str]()
    files: dict[str, str] = {}
    changed: set[str] = set()
    with staged_folder(folder) as staging:
        for part in accounts(staging):
            rows_out += part.rows_out
            dropped.update(part.dropped)
            counts.update(part.counts)
            changed.update(part.changed)
            files.update(part.files)
            report(name, rows_out + dropped.total(), rows_in)
        account = StepAccount(
            name=name,
            key=key,
            rows_in=rows_in or rows_out + dropped.total(),
            rows_out=rows_out,
            dropped=dict(dropped.most_common()),
            counts=dict(counts.most_common()),
            changed=sorted(changed),
            files=dict(sorted(files.items())),
            seconds=round(time.perf_counter() - started_s, 3),
        )
        write_json(staging / ACCOUNT, asdict(account))
    return StepOutcome(account, folder, from_cache=False)


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
