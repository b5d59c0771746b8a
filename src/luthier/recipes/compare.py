"""`luthier compare`: several runs read, and the page that lays them over each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from luthier.core.errors import RunError, SettingsError
from luthier.core.files import write_text
from luthier.recipes.run_record import read_run
from luthier.recipes.run_report import reported_run
from luthier.report.compare_page import compare_page
from luthier.report.reported_run import ReportedRun


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Read the runs that are compared; those with the same name are called by their paths.

    Raises:
        SettingsError: There are fewer than two.
        RunError: One of the folders holds no run, or a damaged one.
    """
    if len(folders) < 2:
        raise SettingsError(
            "a comparison takes two runs or more",
            where="luthier compare",
            mend="Name their folders: luthier compare output/one output/other",
        )
    runs = [reported_run(read_run(folder)) for folder in folders]
    counts = Counter(run.name for run in runs)
    return [replace(run, name=run.folder) if counts[run.name] > 1 else run for run in runs]


def write_comparison(runs: Sequence[ReportedRun], page: Path) -> None:
    """Write the page that compares runs.

    Raises:
        RunError: It can't be written.
    """
    html = compare_page(runs)
    try:
        write_text(page, html)
    except OSError as error:
        raise RunError(
            f"the page can't be written: {error.strerror or error}",
            where=str(page),
            mend="Make room, or name another file by --out.",
        ) from error
