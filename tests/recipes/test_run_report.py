"""The report of a run: written while it trains, at its end however it ends, and by hand."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, StepRecord
from luthier.core.errors import RunError
from luthier.core.lock import locked_folder
from luthier.recipes import run_report
from luthier.recipes.run_record import read_run
from luthier.recipes.run_report import REPORT, RunReport, reported_run, write_report

RECORD = StepRecord(1, 0.1, {"eval_loss": 1.0})


class Clock:
    """Seconds that a test turns on; each page takes some."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder as an old version left it: settings and metrics, nothing else."""
    (tmp_path / "run.yaml").write_text("run:\n  stage: sft\n", encoding="utf-8")
    record = {"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0}
    torn = '{"kind": "train", "st'
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(record)}\n{torn}", encoding="utf-8")
    return tmp_path


@pytest.fixture
def notices() -> list[Notice]:
    return []


def test_a_run_writes_its_report(small_run: Any, real_report: None):
    trained = small_run.train()
    html = (trained.folder / REPORT).read_text(encoding="utf-8")
    assert "finished" in html
    assert "step 8 of 8" in html
    assert 'id="figure-loss"' in html
    assert 'id="figure-time"' in html
    # A few validation rows, before training and after.
    assert "before training" in html
    assert "after training" in html
    assert "Plotly" in html


def test_a_stopped_run_writes_it_too_and_goes_on(small_run: Any, real_report: None):
    stopped = small_run.train(stop_after=2)
    html = (stopped.folder / REPORT).read_text(encoding="utf-8")
    assert "stopped, can go on" in html
    assert "--resume_from_checkpoint" in html
    whole = small_run.train("--resume_from_checkpoint")
    html = (whole.folder / REPORT).read_text(encoding="utf-8")
    assert "step 8 of 8" in html
    # The losses before training are those of the first part.
    assert "before training" in html


def test_a_run_that_ends_with_an_error_is_broken_off(
    small_run: Any, real_report: None, monkeypatch: pytest.MonkeyPatch
):
    from luthier.recipes import train

    def no_room(*args: Any, **kwargs: Any):
        raise RunError("the trained model could not be written")

    monkeypatch.setattr(train, "save_final_model", no_room)
    with pytest.raises(RunError, match="could not be written"):
        small_run.train()
    html = (small_run.folder / "out" / REPORT).read_text(encoding="utf-8")
    assert "broken off" in html


def test_a_run_that_never_began_leaves_no_report(folder: Path, notices: list[Notice]):
    report = RunReport(folder, notices.append)
    with pytest.raises(ValueError, match="early"), report.at_the_end():
        raise ValueError("early")
    assert not (folder / REPORT).exists()


def test_reports_on_the_way_take_a_hundredth_of_the_time(
    folder: Path, notices: list[Notice], monkeypatch: pytest.MonkeyPatch
):
    clock, pages = Clock(), list[float]()

    def page(run: Any) -> str:
        clock.now_s += 2.0
        pages.append(clock.now_s)
        return "page"

    monkeypatch.setattr(run_report, "run_page", page)
    report = RunReport(folder, notices.append, clock)
    with report.at_the_end():
        report.on_start(Progress())
        report.on_evaluation(RECORD)  # The first takes nothing, as far as is known.
        for _ in range(6):
            clock.now_s += 100.0
            report.on_evaluation(RECORD)
        # Two pages take 4 s: more than a hundredth until 400 s have passed; three until 600 s.
        assert pages == [102.0, 504.0, 706.0]
    assert len(pages) == 4, "the last one is written whatever it takes"


def test_the_clock_starts_once(folder: Path, notices: list[Notice]):
    clock = Clock()
    report = RunReport(folder, notices.append, clock)
    report.on_start(Progress())
    clock.now_s += 1000.0
    report.on_start(Progress(step=3))  # After a rollback.
    report.on_evaluation(RECORD)
    assert (folder / REPORT).is_file()


def test_a_full_disk_does_not_stop_training_and_is_told_once(
    folder: Path, notices: list[Notice], monkeypatch: pytest.MonkeyPatch
):
    def no_room(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(run_report, "write_text", no_room)
    report = RunReport(folder, notices.append)
    with report.at_the_end():
        report.on_start(Progress())
        report.on_evaluation(RECORD)
    assert [notice.setting for notice in notices] == ["report"]
    assert "report.html was not written" in notices[0].reason
    assert "No space left" in notices[0].reason


def test_a_damaged_file_does_not_stop_training(folder: Path, notices: list[Notice]):
    (folder / "metrics.jsonl").write_text("no record\n", encoding="utf-8")
    report = RunReport(folder, notices.append)
    report.on_start(Progress())
    report.on_evaluation(RECORD)
    assert "no record of a step" in notices[0].reason


def test_while_the_lock_is_held_it_is_running(folder: Path, notices: list[Notice]):
    report = RunReport(folder, notices.append)
    with report.at_the_end(), locked_folder(folder, lambda line: None):
        report.on_start(Progress())
        report.on_evaluation(RECORD)
        assert '<span class="state running">' in (folder / REPORT).read_text(encoding="utf-8")
    assert '<span class="state broken-off">' in (folder / REPORT).read_text(encoding="utf-8")


def test_by_hand_and_to_another_place(folder: Path, tmp_path: Path):
    assert write_report(folder) == folder / REPORT
    other = tmp_path / "pages" / "mine.html"
    assert write_report(folder, other) == other
    assert other.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_is_an_error(folder: Path):
    (folder / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="the report can't be written: File exists") as caught:
        write_report(folder, folder / "file" / "page.html")
    assert "--out FILE" in str(caught.value)
    with pytest.raises(RunError, match="there is no such folder"):
        write_report(folder / "nowhere")


def test_evaluations_and_rows_are_read_and_damaged_ones_named(folder: Path):
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "good.json").write_text('{"metrics": {}}', encoding="utf-8")
    (folder / "evaluations" / "list.json").write_text("[]", encoding="utf-8")
    (folder / "evaluations" / "torn.json").write_text("{", encoding="utf-8")
    (folder / "evaluations" / "good.answers.jsonl").write_text("{}\n", encoding="utf-8")
    (folder / "shown_rows.json").write_text('{"step": 4}', encoding="utf-8")
    run = reported_run(read_run(folder))
    assert run.results == {"good.json": {"metrics": {}}, "list.json": None, "torn.json": None}
    assert run.shown_rows == {"step": 4}
    (folder / "shown_rows.json").unlink()
    assert reported_run(read_run(folder)).shown_rows == {}


def test_secrets_are_hidden(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_API_KEY", "very-secret-value")
    settings = "run:\n  output_dir: https://x/very-secret-value\n"
    (folder / "run.yaml").write_text(settings, encoding="utf-8")
    assert "very-secret-value" not in write_report(folder).read_text(encoding="utf-8")


def test_no_torch_is_loaded(folder: Path):
    code = (
        "import sys; from pathlib import Path; from luthier.recipes.run_report import write_report;"
        "write_report(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def test_a_folder_that_was_moved_has_its_new_name(folder: Path, tmp_path: Path):
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    shutil.copytree(folder, moved)
    assert moved.name in write_report(moved).read_text(encoding="utf-8")
