"""`luthier sweep`: what is printed, and how it exits. The trials are real runs of a tiny model."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from ruamel.yaml import YAML

from luthier.cli import sweep
from luthier.cli.sweep import SweepScreen, print_outcome
from luthier.core.errors import SettingsError
from luthier.engine.interrupt import StopSignals
from luthier.recipes.config_flags import read_flags
from luthier.recipes.run_record import RunRecord, read_run
from luthier.recipes.sweep_plan import read_sweep
from luthier.recipes.sweep_record import SweepRecord, SweepTrial

Write = Callable[..., Path]


@pytest.fixture
def write_sweep(tmp_path: Path) -> Write:
    """Write a sweep's settings file and its rows."""

    def write(model: str = "m", **sweep: Any) -> Path:
        rows = [{"instruction": f"Name {i}.", "output": "Red and blue."} for i in range(8)]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        values = {
            "model_name_or_path": model,
            "train_file": str(tmp_path / "rows.json"),
            "val_size": 2,
            "prepared_dir": str(tmp_path / "prepared"),
            "output_dir": str(tmp_path / "sweep"),
            "max_steps": 2,
            "bf16": False,
            "logging_steps": 1,
            "sweep": {"num_trials": 2, "ranges": {"learning_rate": [1e-3, 1e-2]}} | sweep,
        }
        path = tmp_path / "sweep.yaml"
        YAML().dump(values, path)
        return path

    return write


@pytest.fixture
def record(write_sweep: Write) -> SweepRecord:
    plan = read_sweep(read_flags([str(write_sweep())]))
    done = SweepTrial(0, {"learning_rate": 1e-3}, "finished", 1.25, (1.25,), 2, 3.0)
    return SweepRecord(plan, (done, SweepTrial(1, {"learning_rate": 1e-2})), (), "")


def lines_of(act: Callable[[Console], None], *, terminal: bool = False) -> list[str]:
    file = io.StringIO()
    act(Console(file=file, width=100, force_terminal=terminal, color_system=None, highlight=False))
    return file.getvalue().splitlines()


def test_a_sweep_of_a_real_run(
    write_sweep: Write, tiny_llama: Any, tmp_path: Path, capture: Any
) -> None:
    out = capture(sweep)
    path = write_sweep(str(tiny_llama()))
    sweep.run([str(path), "--num_trials", "1"])
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("trial 0 (1 of 1)  learning_rate 0.0")
    assert lines[1].startswith("  eval_loss ")
    done, best, model, again, report = lines[2:]
    assert done == "Done: 1 of 1 trial."
    assert best.startswith("  best    eval_loss ")
    assert again == f"  again   luthier train {tmp_path / 'sweep' / 'best.yaml'}"
    assert report == f"  report  {tmp_path / 'sweep' / 'sweep.html'}"
    run = read_run(Path(model.split()[1]))
    assert (run.state, run.step) == ("finished", 2)
    written = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    values = [trial["value"] for trial in written["trials"]]
    assert run.last_eval["eval_loss"] == min(values)
    assert written["trials"][0]["step"] == 2


def test_ctrl_c_stops_with_a_way_to_go_on(
    write_sweep: Write, tmp_path: Path, capture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(plan: Any, command: Any, screen: Any, stop: StopSignals, **rest: Any) -> Any:
        stop.has_work = True
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        return SweepRecord(plan, (), tuple(command), "")

    out = capture(sweep)
    path = write_sweep()
    monkeypatch.setattr("luthier.recipes.sweep.run_sweep", stopped)
    with pytest.raises(SystemExit) as end:
        sweep.run([str(path), "--seed", "7", "--overwrite_output_dir"])
    assert end.value.code == 75
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("SIGINT: the trial under way writes a checkpoint")
    assert lines[1] == "Stopped: 0 of 2 trials."
    assert lines[2] == f"  go on   luthier sweep {path} --seed 7 --resume_from_checkpoint"


def test_a_typo_is_answered_at_once(write_sweep: Write) -> None:
    path = write_sweep(ranges={"lerning_rate": [1e-4]})
    with pytest.raises(SettingsError, match="no setting is named lerning_rate"):
        sweep.run([str(path)])


def test_each_end_of_a_trial_has_its_line(record: SweepRecord) -> None:
    best = record.trials[0]

    def show(console: Console) -> None:
        screen = SweepScreen(console, "eval_loss")
        screen.ended(best, best)
        screen.ended(SweepTrial(1, {}, "pruned", None, (2.0,), 1200, 65.0), best)
        screen.ended(SweepTrial(2, {}, "failed", cause="no memory [red]"), best)
        screen.ended(SweepTrial(3, {}, "failed", cause="odd"), None)
        screen.signalled("SIGUSR1")

    assert lines_of(show) == [
        "  eval_loss 1.25  3.0 s",
        "  stopped early at step 1,200  1 min 05 s  best: 1.25, trial 0",
        "  failed: no memory [red]  0.0 s  best: 1.25, trial 0",
        "  failed: odd  0.0 s",
        "SIGUSR1: the trial writes a checkpoint, and goes on.",
    ]


def test_on_a_terminal_a_passing_line_says_how_far_a_trial_is(record: SweepRecord) -> None:
    nothing: tuple[Any, ...] = ()
    train = ({"kind": "train", "step": 1, "epoch": 0.5, "loss": 2.0, "elapsed_seconds": 1.0},)
    settings = {"training": {"max_steps": 4}}
    run = RunRecord(
        Path("x"), settings, {}, train, nothing, nothing, nothing, nothing, nothing, "running"
    )

    def show(console: Console) -> None:
        with SweepScreen(console, "eval_loss") as screen:
            screen.begins(record.trials[0], 2)
            screen.progress(run)

    text = "\n".join(lines_of(show, terminal=True))
    assert "trial 0 (1 of 2)  learning_rate 0.001" in text
    assert "step 1 of 4" in text
    assert "step 1 of 4" not in "\n".join(lines_of(show))


def test_a_sweep_without_a_finished_trial_has_no_best(record: SweepRecord) -> None:
    empty = SweepRecord(record.plan, (), (), "")
    assert lines_of(lambda console: print_outcome(console, empty, ["s.yaml"])) == [
        "Stopped: 0 of 2 trials.",
        "  go on   luthier sweep s.yaml --resume_from_checkpoint",
    ]
