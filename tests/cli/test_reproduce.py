"""`luthier reproduce`: the table of today, the verdict, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from luthier.cli import reproduce as command
from luthier.contracts.training import Progress
from luthier.core.errors import DataError, RunError
from luthier.recipes import reproduce
from luthier.recipes.reproduce import Checked
from luthier.recipes.run_comparison import Comparison, LossDifference, TensorDifference
from luthier.recipes.run_differences import Difference, Today
from luthier.recipes.train import TrainResult

A, B = "a" * 64, "b" * 64
DIFFERENCES = (
    Difference("luthier", "source", A, B, "everything"),
    Difference("data", "train: rows [1].json", A, "not there", "the data"),
    Difference("package", "torch", "2.12", "2.13", "the last bits"),
)
SAME = Comparison(
    then=A,
    now=A,
    changed_since=False,
    num_tensors=30,
    tensors=(),
    num_records=8,
    num_alone=0,
    first_loss=None,
)
OTHER = Comparison(
    then=A,
    now=B,
    changed_since=True,
    num_tensors=30,
    tensors=(
        TensorDifference("q [a]", problem="only in x"),
        *(TensorDifference(f"t{n}", 0.001, 0.0002) for n in range(6)),
    ),
    num_records=8,
    num_alone=2,
    first_loss=LossDifference("eval", 3, "eval_loss", 2.5, None),
)


def test_differences_are_a_table_with_short_hashes(capture: Any):
    shown = capture(command)
    command.print_today(Today(20, DIFFERENCES, ("settings", "torch")))
    lines = shown.getvalue().splitlines()
    assert lines[0].split() == ["differs", "today", "then", "now", "can", "change"]
    assert lines[1].split() == ["luthier", "source", A[:12], B[:12], "everything"]
    assert "data train: rows [1].json" in lines[2]
    assert lines[2].split()[-5:] == [A[:12], "not", "there", "the", "data"]
    assert lines[3].split() == ["package", "torch", "2.12", "2.13", "the", "last", "bits"]
    assert lines[4:] == [
        "today 20 facts are the same, 3 differ",
        "not recorded then: settings, torch",
    ]


def test_where_nothing_differs_one_line_says_so(capture: Any):
    shown = capture(command)
    command.print_today(Today(21, (), ()))
    assert shown.getvalue() == "today 21 facts are the same, 0 differ\n"


def test_the_verdict_of_an_identical_run(capture: Any):
    shown = capture(command)
    command.print_comparison(SAME)
    assert shown.getvalue() == (
        f"identical 30 tensors are equal bit for bit (sha256 {A[:12]}), 8 logged steps compared\n"
    )


def test_where_two_runs_part(capture: Any):
    shown = capture(command)
    command.print_comparison(OTHER)
    lines = shown.getvalue().splitlines()
    assert lines[0] == "note  the model of the run was changed since it was trained"
    assert lines[1].split() == ["7", "tensors", "differ", "largest", "mean"]
    assert lines[2].split() == ["q", "[a]", "only", "in", "x"]
    assert lines[3].split() == ["t0", "0.001", "0.0002"]
    assert not any(line.startswith("t4") for line in lines)
    assert lines[-3:] == [
        "the first that differs: validation loss of step 3, 2.5 -> None",
        "note  2 logged steps stand in one of the two runs alone",
        "different weights differ, losses differ, 8 logged steps compared",
    ]


def test_without_the_earlier_model_both_hashes_are_shown(capture: Any):
    shown = capture(command)
    command.print_comparison(replace(SAME, now=B))
    assert shown.getvalue().splitlines() == [
        f"the run's own model is not there to compare with: sha256 {A[:12]} -> {B[:12]}",
        "different weights differ, losses equal, 8 logged steps compared",
    ]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, capture: Any):
    """Put outcomes in the place of checking and training; return the calls and the output."""
    calls: list[str] = []
    out = capture(command)
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)

    def put(
        comparison: Comparison = SAME,
        step: int = 4,
        unreadable: DataError | None = None,
        trainer: str = "luthier",
    ) -> tuple[list[str], Any]:
        progress = Progress(step=step, num_steps=4)

        def open_run(folder: Path, output_dir: str | None, moved: Any) -> Any:
            calls.append(f"open {folder} {output_dir} {moved}")
            run = SimpleNamespace(trainer=trainer)
            return SimpleNamespace(config=SimpleNamespace(run=run))

        def refuse_other_data(run: Any, checked: Checked, *, allow_changed: bool) -> None:
            calls.append(f"data {allow_changed}")
            if unreadable is not None:
                raise unreadable

        def train(run: Any, words: list[str], screen: Any, stop: Any) -> TrainResult:
            is_handled = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            calls.append(" ".join(words) + (", signals handled" if is_handled else ""))
            return TrainResult(Path("out-again"), progress, (), 1.0)

        monkeypatch.setattr(reproduce, "open_run", open_run)
        monkeypatch.setattr(reproduce, "refuse_used_folder", lambda _: calls.append("used"))
        monkeypatch.setattr(reproduce, "refuse_unfinished", lambda _: calls.append("unfinished"))
        checked = Checked(Today(3, DIFFERENCES, ()), unreadable)
        monkeypatch.setattr(reproduce, "check_run", lambda _: checked)
        monkeypatch.setattr(reproduce, "refuse_other_data", refuse_other_data)
        monkeypatch.setattr(reproduce, "reproduce", train)
        monkeypatch.setattr(reproduce, "verify", lambda *_: comparison)
        return calls, out

    return put


def call(**options: Any) -> None:
    given: dict[str, Any] = {"output_dir": None, "verify": False, "check_only": False}
    given |= {"allow_changed_data": False, "moved": {}, "args": ["out"]}
    command.run("out", **{**given, **options})


def test_a_check_trains_nothing(fake: Any):
    calls, out = fake()
    call(check_only=True, moved={"train_file": ["x"]})
    assert calls == ["open out None {'train_file': ['x']}", "data False"]
    assert "today 3 facts are the same, 3 differ" in out.getvalue()


def test_the_table_stands_before_the_refusal(fake: Any):
    calls, out = fake(unreadable=DataError("gone"))
    with pytest.raises(DataError, match="gone"):
        call(allow_changed_data=True)
    assert calls[-1] == "data True"
    assert "differ" in out.getvalue()


def test_an_identical_outcome_ends_well(fake: Any):
    calls, out = fake()
    call(verify=True, output_dir="third")
    assert calls == [
        *("open out third {}", "used", "unfinished", "data False"),
        "luthier reproduce out, signals handled",
    ]
    assert out.getvalue().splitlines()[-1].startswith("identical")


def test_another_outcome_ends_with_one(fake: Any):
    _, out = fake(OTHER)
    with pytest.raises(SystemExit) as end:
        call(verify=True)
    assert end.value.code == command.DIFFERENT == 1
    assert out.getvalue().splitlines()[-1].startswith("different")


def test_without_verify_there_is_no_verdict(fake: Any):
    calls, out = fake(OTHER)
    call()
    assert "unfinished" not in calls
    assert "different" not in out.getvalue()


def test_a_stopped_reproduction_can_go_on(fake: Any):
    _, out = fake(step=2)
    with pytest.raises(SystemExit) as end:
        call(verify=True)
    assert end.value.code == 75
    assert "luthier train out-again/run.yaml" in out.getvalue()


def test_the_trainer_without_checkpoints_is_stopped_at_once(fake: Any):
    calls, _ = fake(trainer="transformers")
    call()
    assert calls[-1] == "luthier reproduce out"


def test_a_missing_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("luthier.recipes.quiet.quiet_libraries", lambda: None)
    with pytest.raises(RunError, match="there is no such folder"):
        command.run(
            str(tmp_path / "gone"),
            output_dir=None,
            verify=False,
            check_only=True,
            allow_changed_data=False,
            moved={},
            args=[],
        )


def test_the_command_repeats_a_run_of_another_process(tmp_path: Path, tiny_llama: Any):
    tiny_llama("model")
    rows = [{"instruction": f"Name {i} colours.", "output": "Red and blue."} for i in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    (tmp_path / "small.yaml").write_text(
        "model_name_or_path: model\ntrain_file: rows.json\noutput_dir: out\nprepared_dir: cache\n"
        "logging_steps: 1\nlora_rank: 2\nlora_dropout: 0.1\nbf16: false\nmax_steps: 3\n",
        encoding="utf-8",
    )

    def luthier(*words: str, threads: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "luthier", *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    first = luthier("train", "small.yaml", threads="1")
    assert first.returncode == 0, first.stderr
    done = luthier("reproduce", "out", "--verify", threads="2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "variable OMP_NUM_THREADS  1" in done.stdout
    assert "threads: 2 -> 1 (as many as the run had)" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("identical")
    manifest = json.loads((tmp_path / "out-again" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["command"] == ["luthier", "reproduce", "out", "--verify"]
