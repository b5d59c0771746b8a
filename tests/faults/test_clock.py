"""A clock that was wrong: what a checkpoint's files say of their time decides nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fault_injection.report import Report
from fault_injection.scenarios import judge
from fault_injection.workshop import Workshop
from luthier.checkpoints.listing import inspect_checkpoints

YEAR_S = 365 * 24 * 3600


def date(folder: Path, seconds: float) -> None:
    """Give everything in a folder, and the folder, another time."""
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (seconds, seconds))


def names(folder: Path) -> list[str]:
    return [found.path.name for found in inspect_checkpoints(folder)]


@pytest.mark.parametrize("years", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_checkpoints_of_another_year(workshop: Workshop, years: int, report: Report):
    whole = workshop.whole()
    run = workshop.run()
    fault = {"function": "clip_gradients", "call": 8, "do": "SIGKILL"}
    assert run.train(faults=[fault]) == -9
    assert names(run.folder) == ["step-000004", "step-000006"]
    date(run.folder, time.time() + years * YEAR_S)
    assert "Going on after step 6" in run.go_on().text()
    assert judge(run, whole) == ()
    assert names(run.folder) == names(whole.run.folder)
    report("checkpoints dated a year into the future, or back", "")


@pytest.mark.slow
def test_the_newest_by_time_is_not_the_newest(workshop: Workshop):
    whole = workshop.whole()
    run = workshop.run(save_total_limit=None)
    fault = {"function": "clip_gradients", "call": 8, "do": "SIGKILL"}
    assert run.train(faults=[fault]) == -9
    for years, found in enumerate(reversed(inspect_checkpoints(run.folder))):
        date(found.path, time.time() + years * YEAR_S)
    assert "Going on after step 6" in run.go_on().text()
    assert judge(run, whole) == ()
