"""`luthier report`: the page of a run, at any time and from any process."""

from __future__ import annotations

from pathlib import Path

from luthier.cli.terminal import console


def run(folder: str, *, out: str | None) -> None:
    """Write the report of a run and say where it is.

    Args:
        folder: The run's.
        out: The page's file; None: report.html in the folder.

    Raises:
        RunError: There is no run, or the page can't be written.
    """
    from luthier.recipes.run_report import write_report

    asked = None if out is None else Path(out).expanduser()
    page = write_report(Path(folder).expanduser(), asked)
    console.print(f"written {page}", markup=False, highlight=False, soft_wrap=True)
