"""A trial is a process that is watched through its folder, and stopped as a user would stop it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import SettingsError
from luthier.core.exit_codes import STOPPED
from luthier.core.lock import locked_folder
from luthier.recipes.run_folder import write_settings
from luthier.recipes.run_record import RunRecord
from luthier.recipes.sweep_trial import TrialEnd, log_file, read_cause, run_trial

FOLDER = "trial-0000"


class Trial:
    """One trial of a fake sweep, and what was seen of it."""

    def __init__(self, sweep: Any) -> None:
        self.sweep = sweep
        self.folder: Path = sweep.folder / FOLDER
        self.seen: list[list[Any]] = []
        self.is_behind = False
        config = sweep.plan().trial_config({"learning_rate": 1e-3}, str(self.folder))
        write_settings(sweep.folder / f"{FOLDER}.yaml", config, "A trial.")

    def look(self, run: RunRecord) -> bool:
        self.seen.append([record["eval_loss"] for record in run.evaluations])
        return self.is_behind and self.sweep.waits(0)

    def run(self) -> TrialEnd:
        sweep = self.sweep
        settings_file = sweep.folder / f"{FOLDER}.yaml"
        return run_trial(
            settings_file, self.folder, self.look, sweep.stop, sweep._wait, sweep.train
        )


@pytest.fixture
def trial(fake_sweep: Any) -> Trial:
    return Trial(fake_sweep)


def test_a_trial_runs_to_its_end(trial: Trial) -> None:
    end = trial.run()
    assert (end.code, end.was_pruned, end.cause) == (0, False, "")
    assert end.run is not None
    assert end.run.state == "finished"
    assert trial.seen[-1] == [9.0, 2.0, 1.0]
    assert log_file(trial.folder).is_file()


def test_a_trial_that_is_behind_is_stopped_with_a_checkpoint(trial: Trial) -> None:
    trial.sweep.behave(trial_0000="hangs")
    trial.is_behind = True
    end = trial.run()
    assert (end.code, end.was_pruned) == (STOPPED, True)
    assert end.run is not None
    assert end.run.state == "stopped"


def test_a_stopped_trial_goes_on_from_its_checkpoint(trial: Trial) -> None:
    trial.sweep.behave(trial_0000="hangs")
    trial.sweep.at_wait = lambda: setattr(trial.sweep.stop, "requested", trial.sweep.waits(0))
    end = trial.run()
    assert (end.code, end.was_pruned) == (STOPPED, False)
    # Nothing begins while the user wants to stop.
    assert trial.run() == TrialEnd(STOPPED, None, was_pruned=False)
    trial.sweep.at_wait = lambda: None
    trial.sweep.stop.requested = False
    assert trial.run().code == 0
    assert trial.sweep.calls() == [[FOLDER], [FOLDER, "--resume_from_checkpoint"]]


def test_what_a_kill_left_without_a_checkpoint_is_removed(trial: Trial) -> None:
    trial.sweep.behave(trial_0000="killed")
    end = trial.run()
    assert end.code < 0
    assert end.cause == "its process was killed by SIGKILL; is the memory too small?"
    (trial.folder / "left").touch()
    trial.sweep.behave()
    assert trial.run().code == 0
    assert not (trial.folder / "left").exists()


def test_a_trial_that_finished_unseen_is_not_trained_again(trial: Trial) -> None:
    trial.run()
    trial.seen.clear()
    assert trial.run().code == 0
    assert trial.seen == [[9.0, 2.0, 1.0]]
    assert trial.sweep.calls() == [[FOLDER]]


def test_a_process_that_outlived_the_sweep_is_waited_for(trial: Trial) -> None:
    trial.run()
    trial.seen.clear()
    (trial.folder / "manifest.json").write_text("{}")
    lock = locked_folder(trial.folder, lambda line: None)
    lock.__enter__()

    def let_go() -> None:
        assert trial.seen == [[9.0, 2.0, 1.0]]
        lock.__exit__(None, None, None)
        trial.sweep.at_wait = lambda: None

    trial.sweep.at_wait = let_go
    assert trial.run().code == 0
    assert trial.sweep.calls() == [[FOLDER], [FOLDER]]


def test_a_checkpoint_that_is_wanted_is_asked_of_the_trial(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal
    import subprocess

    sent: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "send_signal", lambda self, number: sent.append(number))
    trial.sweep.stop.wants_checkpoint = True
    trial.run()
    assert sent == [signal.SIGUSR1]


def test_an_error_of_the_watcher_ends_the_process(trial: Trial) -> None:
    trial.sweep.behave(trial_0000="hangs")

    def look(run: RunRecord) -> bool:
        raise SettingsError("no such metric")

    trial.look = look
    with pytest.raises(SettingsError, match="no such metric"):
        trial.run()
    with locked_folder(trial.folder, lambda line: None):  # Nobody holds it any more.
        pass


def test_the_cause_is_the_error_of_the_newest_start(tmp_path: Path) -> None:
    log = tmp_path / "trial.log"
    log.write_text("error: an older one\n")
    begin = log.stat().st_size
    assert read_cause(log, begin, 1) == "its process ended with exit code 1 and said nothing"
    with log.open("a") as stream:
        stream.write("Traceback\nValueError: odd\n\n")
    assert read_cause(log, begin, 1) == "ValueError: odd"
    with log.open("a") as stream:
        stream.write("error: out.yaml: no memory\n  Make room.\n")
    assert read_cause(log, begin, 1) == "out.yaml: no memory"
