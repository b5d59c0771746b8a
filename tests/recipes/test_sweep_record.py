"""sweep.json is all that going on with a sweep needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.core.errors import RunError
from luthier.recipes.run_record import SWEEP_JSON
from luthier.recipes.sweep_record import (
    SweepRecord,
    SweepTrial,
    read_record,
    write_record,
)

TRIALS = (
    SweepTrial(0, {"learning_rate": 1e-4}, "finished", 1.5, (2.0, 1.5), 8, 3.5),
    SweepTrial(1, {"learning_rate": 1e-5}, "failed", cause="no memory"),
    SweepTrial(2, {"learning_rate": 1e-3}, "finished", 1.25, (1.25,)),
    SweepTrial(3, {"learning_rate": 2e-3}),
)


@pytest.fixture
def record(fake_sweep: Any) -> SweepRecord:
    return SweepRecord(fake_sweep.plan(), TRIALS, ("luthier", "sweep"), "2026-11-24T10:00:00+00:00")


def test_what_is_written_is_read_again(record: SweepRecord, tmp_path: Path) -> None:
    written = write_record(tmp_path, record, {"learning_rate": 1.0})
    assert json.loads((tmp_path / SWEEP_JSON).read_text()) == written
    assert written["best"] == 2
    assert written["importance"] == {"learning_rate": 1.0}
    assert [trial["folder"] for trial in written["trials"][:2]] == ["trial-0000", "trial-0001"]
    assert read_record(tmp_path, record.plan) == record


def test_the_best_follows_the_direction(record: SweepRecord, fake_sweep: Any) -> None:
    assert record.best == TRIALS[2]
    upward = SweepRecord(fake_sweep.plan(direction="maximize"), TRIALS, (), "")
    assert upward.best == TRIALS[0]
    assert SweepRecord(record.plan, TRIALS[1:2], (), "").best is None
    assert record.done == TRIALS[:3]


def test_a_trial_takes_the_place_of_its_number(record: SweepRecord) -> None:
    ended = SweepTrial(3, {"learning_rate": 2e-3}, "pruned")
    assert record.with_trial(ended).trials == (*TRIALS[:3], ended)
    assert record.with_trial(SweepTrial(4, {})).trials[:4] == TRIALS


def test_more_trials_and_other_pruning_go_on(
    record: SweepRecord, tmp_path: Path, fake_sweep: Any
) -> None:
    write_record(tmp_path, record, {})
    plan = fake_sweep.plan("--output_dir", "moved", num_trials=50, pruner="none", prune_after=9)
    assert read_record(tmp_path, plan).trials == TRIALS


@pytest.mark.parametrize(
    ("flags", "sweep", "named"),
    [
        ((), {"ranges": {"learning_rate": [1e-4]}}, "ranges"),
        ((), {"metric": "eval_perplexity", "direction": "maximize"}, "metric, direction"),
        ((), {"sampler": "random"}, "sampler"),
        (("--seed", "7"), {}, "the other settings"),
    ],
)
def test_another_sweep_does_not_go_on(
    record: SweepRecord,
    tmp_path: Path,
    fake_sweep: Any,
    flags: tuple[str, ...],
    sweep: dict[str, Any],
    named: str,
) -> None:
    write_record(tmp_path, record, {})
    with pytest.raises(RunError, match="was begun with something else") as caught:
        read_record(tmp_path, fake_sweep.plan(*flags, **sweep))
    assert caught.value.problem.endswith(f"something else: {named}")


def test_no_record_and_a_damaged_one_are_refused(record: SweepRecord, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no sweep to go on with"):
        read_record(tmp_path, record.plan)
    for text in ("{", "[]", '{"trials": [{}]}', '{"trials": 3}'):
        (tmp_path / SWEEP_JSON).write_text(text)
        with pytest.raises(RunError, match="the record of the sweep is damaged"):
            read_record(tmp_path, record.plan)
