"""A sweep: trials that finish, are stopped early or fail, and a sweep that goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RunError, SettingsError
from luthier.recipes import sweep as sweep_module
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.run_record import find_runs, read_run
from luthier.recipes.sweep import clear_sweep
from luthier.recipes.sweep_draws import open_trial


def states(record: Any) -> list[str]:
    return [trial.state for trial in record.trials]


def rates(record: Any) -> list[float]:
    return [trial.params["learning_rate"] for trial in record.trials]


def test_a_sweep_leaves_runs_and_what_they_came_to(fake_sweep: Any) -> None:
    record = fake_sweep.run()
    assert states(record) == ["finished"] * 3
    assert [t.value for t in record.trials] == pytest.approx([1000 * r for r in rates(record)])
    assert [path.name for path in find_runs(fake_sweep.folder)] == [
        "trial-0000",
        "trial-0001",
        "trial-0002",
    ]
    best = min(record.trials, key=lambda trial: trial.value)
    assert record.best == best
    assert [trial.number for trial, _ in fake_sweep.screen.ends] == [0, 1, 2]
    assert fake_sweep.screen.ends[-1][1] == best
    written = json.loads((fake_sweep.folder / "sweep.json").read_text())
    assert written["best"] == best.number
    assert written["trials"][0]["reported"] == pytest.approx(
        [2000 * rates(record)[0], best.value if best.number == 0 else 1000 * rates(record)[0]]
    )
    config = resolve_file(fake_sweep.folder / "best.yaml").config
    assert config.schedule.learning_rate == best.params["learning_rate"]
    assert config.run.output_dir == str(fake_sweep.folder / "best")
    assert best.name in (fake_sweep.folder / "best.yaml").read_text().splitlines()[0]
    assert best.name in (fake_sweep.folder / "sweep.html").read_text()


def test_the_same_sweep_twice_tries_the_same(fake_sweep: Any) -> None:
    first = rates(fake_sweep.run())
    assert rates(fake_sweep.run("--overwrite_output_dir")) == first
    assert len(set(first)) == 3


def test_a_trial_behind_the_others_is_stopped_early(fake_sweep: Any) -> None:
    seed, plan = 0, fake_sweep.plan("--seed", "0")
    while rates_of_two(plan)[0] >= rates_of_two(plan)[1]:
        seed += 1
        plan = fake_sweep.plan("--seed", str(seed))
    fake_sweep.behave(trial_0001="hangs")
    record = fake_sweep.run("--seed", str(seed), num_trials=2, prune_after=1)
    assert states(record) == ["finished", "pruned"]
    assert record.best == record.trials[0]
    assert read_run(fake_sweep.folder / "trial-0001").state == "stopped"


def rates_of_two(plan: Any) -> list[Any]:
    first = open_trial(plan, []).params
    done = sweep_module.SweepTrial(0, first, "finished", 1.0, (1.0,))
    return [first["learning_rate"], open_trial(plan, [done]).params["learning_rate"]]


def test_a_stopped_sweep_goes_on_as_if_it_had_not_been(fake_sweep: Any) -> None:
    whole = rates(fake_sweep.run())
    fake_sweep.behave(trial_0001="hangs")
    fake_sweep.at_wait = lambda: setattr(fake_sweep.stop, "requested", fake_sweep.waits(1))
    stopped = fake_sweep.run("--overwrite_output_dir")
    assert states(stopped) == ["finished", "running"]
    assert (
        json.loads((fake_sweep.folder / "sweep.json").read_text())["trials"][1]["state"]
        == "running"
    )
    fake_sweep.at_wait = lambda: None
    fake_sweep.stop.requested = False
    record = fake_sweep.run("--resume_from_checkpoint")
    assert states(record) == ["finished"] * 3
    assert rates(record) == whole
    assert fake_sweep.calls()[3:] == [
        ["trial-0000"],
        ["trial-0001"],
        ["trial-0001", "--resume_from_checkpoint"],
        ["trial-0002"],
    ]
    assert fake_sweep.run("--resume_from_checkpoint").trials == record.trials
    assert len(fake_sweep.run("--resume_from_checkpoint", num_trials=4).trials) == 4


def test_a_sweep_that_was_killed_goes_on(fake_sweep: Any) -> None:
    def kill() -> None:
        if fake_sweep.waits(0):
            raise KeyboardInterrupt

    fake_sweep.behave(trial_0000="hangs")
    fake_sweep.at_wait = kill
    with pytest.raises(KeyboardInterrupt):
        fake_sweep.run()
    fake_sweep.behave()
    fake_sweep.at_wait = lambda: None
    record = fake_sweep.run("--resume_from_checkpoint")
    assert states(record) == ["finished"] * 3
    # Its process died before a checkpoint: the trial began anew, with the same values.
    assert fake_sweep.calls()[:2] == [["trial-0000"], ["trial-0000"]]


def test_failures_are_counted_and_three_in_a_row_end_it(fake_sweep: Any) -> None:
    fails = {"trial_0000": "cannot begin", "trial_0002": "diverges", "trial_0003": "killed"}
    fake_sweep.behave(**fails)
    record = fake_sweep.run(num_trials=5)
    assert states(record) == ["failed", "finished", "failed", "failed", "finished"]
    assert record.trials[0].cause == "rows.jsonl: the memory is full"
    assert record.trials[2].cause == "eval_loss was no finite number"
    fake_sweep.behave(**fails, trial_0001="cannot begin")
    problem = "3 trials in a row failed, the last one by: eval_loss was no finite number"
    with pytest.raises(RunError, match=problem) as caught:
        fake_sweep.run("--overwrite_output_dir", num_trials=5)
    assert caught.value.where == str(fake_sweep.folder / "trial-0002.log")
    assert len(json.loads((fake_sweep.folder / "sweep.json").read_text())["trials"]) == 3
    # What came before the mend does not count any more.
    fake_sweep.behave()
    assert states(fake_sweep.run("--resume_from_checkpoint", num_trials=5))[3:] == ["finished"] * 2


def test_values_that_do_not_go_together_are_a_failed_trial(fake_sweep: Any) -> None:
    # Each goes with the first value of the other, and the two second ones do not.
    ranges = {"learning_rate": [1e-4], "warmup_steps": [0, 5], "warmup_ratio": [0.0, 0.1]}
    record = fake_sweep.run(ranges=ranges, num_trials=8, sampler="random")
    failed = [trial for trial in record.trials if trial.state == "failed"]
    assert failed
    for trial in record.trials:
        both = bool(trial.params["warmup_steps"] and trial.params["warmup_ratio"])
        assert (trial.state == "failed") is both
    assert "warmup_ratio and warmup_steps are both set" in failed[0].cause


def test_a_metric_that_the_runs_do_not_measure_ends_the_sweep(fake_sweep: Any) -> None:
    fake_sweep.behave(trial_0000="measures another")
    with pytest.raises(
        SettingsError, match="the runs of this sweep measure no eval_loss"
    ) as caught:
        fake_sweep.run()
    assert "eval_other" in (caught.value.mend or "")


def test_a_metric_of_training_is_taken_from_the_end(fake_sweep: Any) -> None:
    with pytest.raises(SettingsError, match="the runs of this sweep measure no loss"):
        fake_sweep.run(metric="loss")


def test_a_folder_in_use_is_not_written_to(fake_sweep: Any) -> None:
    fake_sweep.run(num_trials=1)
    with pytest.raises(RunError, match="output_dir holds a sweep already") as caught:
        fake_sweep.run()
    assert "--resume_from_checkpoint" in (caught.value.mend or "")
    (fake_sweep.folder / "sweep.json").unlink()
    with pytest.raises(RunError, match="not empty, and what is in it is no sweep"):
        fake_sweep.run()
    with pytest.raises(RunError, match="not empty, and what is in it is no sweep"):
        fake_sweep.run("--overwrite_output_dir")


def test_a_model_in_a_trial_is_not_removed_from_under_the_sweep(fake_sweep: Any) -> None:
    fake_sweep.run(num_trials=1)
    model = str(fake_sweep.folder / "trial-0000")
    with pytest.raises(RunError, match="model_name_or_path lies in output_dir"):
        fake_sweep.run("--overwrite_output_dir", "--model_name_or_path", model)


def test_clearing_leaves_what_is_no_part_of_a_sweep(tmp_path: Path) -> None:
    for name in ("trial-0000.yaml", "trial-0000.log", "sweep.json", "sweep.html", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "trial-0000" / "checkpoints").mkdir(parents=True)
    (tmp_path / "best").mkdir()
    clear_sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "notes.txt"]
