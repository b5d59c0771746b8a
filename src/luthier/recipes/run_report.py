"""report.html of a run: made after each validation and at the end, or at any time by hand.

In: a run's folder, of this version of luthier or an older one. Out: the page. No torch is loaded,
so that `luthier report` looks at a run from another process, too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, SampleRecord, StepRecord
from luthier.core.clock import now
from luthier.core.errors import RunError
from luthier.core.files import write_text
from luthier.core.secrets import redact_json
from luthier.recipes.run_record import RunReader, RunRecord, read_run
from luthier.report.reported_run import ReportedRun
from luthier.report.run_page import run_page

REPORT = "report.html"
SHOWN_ROWS = "shown_rows.json"
RESULTS = "evaluations"

MOST_SHARE = 0.01
"""Of a run's time goes into reports before its end."""


def write_report(folder: Path, page: Path | None = None) -> Path:
    """Write the report of a run and return where it is.

    Args:
        folder: The run's.
        page: The file; None: report.html in the folder.

    Raises:
        RunError: There is no run, a file of it is damaged, or the page can't be written.
    """
    target = folder / REPORT if page is None else page
    html = run_page(reported_run(read_run(folder)))
    try:
        write_text(target, html)
    except OSError as error:
        raise RunError(
            f"the report can't be written: {error.strerror or error}",
            where=str(target),
            mend="Make room, or name another file: luthier report RUN --out FILE.html",
        ) from error
    return target


def reported_run(run: RunRecord) -> ReportedRun:
    """Return what a report says of a run, secrets hidden."""
    return ReportedRun(
        name=run.folder.resolve().name,
        folder=str(run.folder),
        state=run.state,
        settings=redact_json(run.flat_settings),
        manifest=redact_json(run.manifest),
        train=run.train,
        evals=run.evaluations,
        saves=run.saves,
        samplings=run.samplings,
        events=redact_json(run.events),
        samples=run.samples,
        results=_results(run.folder / RESULTS),
        shown_rows=_read_json(run.folder / SHOWN_ROWS) or {},
        num_steps=run.num_steps,
        seconds=run.seconds,
        written=now(),
    )


class RunReport:
    """Keeps the report of a run up to date while it trains; implements `Observer`.

    That a report can't be written never stops training: it is told once.
    """

    def __init__(
        self,
        folder: Path,
        tell: Callable[[Notice], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Remember where.

        Args:
            folder: The run's.
            tell: Told that the report can't be written.
            clock: In seconds.
        """
        self._folder = folder
        self._tell = tell
        self._clock = clock
        self._reader = RunReader(folder)
        self._started_s: float | None = None
        self._spent_s = self._longest_s = 0.0
        self._has_told = False

    def on_start(self, progress: Progress) -> None:
        """Start the clock that tells how much time reports may take."""
        if self._started_s is None:
            self._started_s = self._clock()

    def on_step(self, record: StepRecord) -> None:
        """A page a step would be too many."""

    def on_log(self, record: StepRecord) -> None:
        """The next evaluation shows it."""

    def on_evaluation(self, record: StepRecord) -> None:
        """Write the report, unless all of them would take over a hundredth of the time."""
        assert self._started_s is not None, "a run starts before it is measured"
        elapsed_s = self._clock() - self._started_s
        if self._spent_s + self._longest_s <= MOST_SHARE * elapsed_s:
            self._write()

    def on_samples(self, record: SampleRecord) -> None:
        """The next evaluation shows them."""

    def on_checkpoint(self, step: int, path: str, seconds: float) -> None:
        """Checkpoints are not shown, but for the time that they took."""

    def on_end(self, progress: Progress) -> None:
        """The manifest does not say yet how it ended: see `at_the_end`."""

    @contextmanager
    def at_the_end(self) -> Generator[None]:
        """Write the report after the block, whether it ended well or not.

        The block is to hold the run's lock: as long as that is held, a run is running.
        """
        try:
            yield
        finally:
            if self._started_s is not None:
                self._write()

    def _write(self) -> None:
        before_s = self._clock()
        try:
            html = run_page(reported_run(self._reader.read()))
            write_text(self._folder / REPORT, html)
        except (OSError, RunError) as error:
            if not self._has_told:
                self._has_told = True
                self._tell(Notice("report", "", "", f"{REPORT} was not written: {error}"))
        took_s = self._clock() - before_s
        self._spent_s += took_s
        self._longest_s = max(self._longest_s, took_s)


def _results(folder: Path) -> dict[str, Mapping[str, Any] | None]:
    paths = sorted(folder.glob("*.json")) if folder.is_dir() else []
    return {path.name: _read_json(path) for path in paths}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
