"""The main figures of a run, whole ones and those of runs that have little to tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from luthier.report.reported_run import (
    ReportedRun,
    best_eval,
    device_name,
    named_parts,
    progress,
    speed,
    summary,
    tiles,
    time_parts,
)

BARE = ReportedRun(name="bare", folder="bare", state="broken off")


def figures(run: ReportedRun) -> dict[str, str]:
    return {tile.label.en: tile.figure for tile in tiles(run)}


def test_the_summary_names_stage_model_tuning_and_data(reported: ReportedRun) -> None:
    words = "Supervised fine-tuning of tiny by LoRA adapters, on rows.json (100 rows)."
    assert summary(reported).en == words
    assert "监督微调" in summary(reported).zh
    assert summary(BARE).en == "Supervised fine-tuning of ? by LoRA adapters, on ?."
    files = {"train_file": ["data/a.json", "data/b.json"]}
    assert summary(replace(BARE, settings=files)).en.endswith("on a.json and 1 more.")


def test_the_main_figures(reported: ReportedRun) -> None:
    assert figures(reported) == {
        "validation loss": "3.000 → 2.500",
        "tokens per second": "1,000",
        "time": "1 min 00 s",
        "memory at most": "2.0 GiB",
    }
    notes = [note.en for tile in tiles(reported) for note in tile.notes]
    assert "best 2.000 at step 10" in notes
    assert "perplexity 8.00 → 5.66" in notes
    assert "40.0k tokens" in notes
    assert "Quick" in notes


def test_without_validation_the_loss_is_that_of_training(reported: ReportedRun) -> None:
    assert figures(replace(reported, evals=()))["training loss"] == "2.850 → 2.100"
    one = replace(reported, evals=(), train=reported.train[:1])
    assert figures(one)["training loss"] == "2.950"


def test_a_run_of_preferences_tells_how_many_pairs_are_ranked_right(reported: ReportedRun) -> None:
    evals = [
        {"step": 0, "eval_rewards/accuracies": 0.5},
        {"step": 20, "eval_rewards/accuracies": 1},
    ]
    assert figures(replace(reported, evals=evals))["pairs ranked right"] == "50.0% → 100.0%"


def test_a_run_that_has_nothing_tells_nothing() -> None:
    assert tiles(BARE) == []
    assert BARE.step == 0
    assert speed(BARE) is None
    assert best_eval(BARE) is None
    assert time_parts(BARE) == []
    assert device_name({}) == ""
    assert progress(BARE).en == "step 0"


def test_how_far_it_came(reported: ReportedRun) -> None:
    assert progress(reported).en == "step 20 of 20, 2.00 epochs"


def test_a_loss_that_is_no_number_is_not_the_best(reported: ReportedRun) -> None:
    evals = [{"step": 1, "eval_loss": None}, {"step": 2, "eval_loss": 4.0}]
    assert best_eval(replace(reported, evals=evals)) == evals[1]
    assert figures(replace(reported, evals=evals))["validation loss"] == "– → 4.000"


def test_the_parts_of_the_time_add_up_to_it(reported: ReportedRun) -> None:
    parts = dict(time_parts(reported))
    assert parts == pytest.approx(
        {
            "data": 2.0,
            "forward": 10.0,
            "backward": 20.0,
            "optimizer": 6.0,
            "step_rest": 2.0,
            "evaluation": 4.5,
            "saving": 0.5,
            "sampling": 1.0,
            "rest": 14.0,
        }
    )
    assert sum(parts.values()) == pytest.approx(reported.seconds)
    named = named_parts(reported)
    assert len({part.colour for part in named}) == len(named)
    assert named[2].name.en == "backward"
    assert named[2].share == "33.3\u00a0%"


def test_a_run_of_an_older_version_knows_only_its_steps(reported: ReportedRun) -> None:
    old = [{"step": 10, "seconds_per_step": 2.0}]
    run = replace(reported, train=old, evals=(), saves=(), samplings=())
    assert dict(time_parts(run)) == {"steps": 20.0, "rest": 40.0}


def test_the_device_is_the_gpu_where_it_was_used() -> None:
    gpu = {"computing": {"device": "cuda"}, "machine": {"gpus": [{"name": "H100"}]}}
    assert device_name(gpu) == "H100"
    assert device_name({**gpu, "machine": {"gpus": ["A100"]}}) == "A100"
