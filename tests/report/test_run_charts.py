"""The charts of a run: which there are, and what they hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from luthier.report.reported_run import ReportedRun
from luthier.report.run_charts import Chart, length_chart, num_not_finite, run_charts, time_chart

BARE = ReportedRun(name="bare", folder="bare", state="running")


def by_id(run: ReportedRun) -> dict[str, Chart]:
    return {chart.id: chart for chart in run_charts(run)}


def names(chart: Chart) -> list[Any]:
    return [trace["name"]["en"] for trace in chart.figure["data"]]


def test_a_whole_run(reported: ReportedRun) -> None:
    found = by_id(reported)
    assert list(found) == [
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens_per_second",
        "memory_bytes",
    ]
    assert names(found["loss"]) == ["training", "training, smoothed", "validation"]
    raw, _, validation = found["loss"].figure["data"]
    assert raw["x"] == list(range(1, 21))
    assert (validation["x"], validation["y"]) == ([0, 10, 20], [3.0, 2.0, 2.5])
    assert set(found["memory_bytes"].figure["data"][0]["y"]) == {2.0}


def test_a_run_of_one_step_draws_a_point(reported: ReportedRun) -> None:
    found = by_id(replace(reported, train=reported.train[:1], evals=()))
    (trace,) = found["loss"].figure["data"]
    assert (trace["y"], trace["mode"]) == ([2.95], "lines+markers")


def test_a_run_without_steps_has_no_charts() -> None:
    assert run_charts(BARE) == []
    assert length_chart(BARE) is None
    assert time_chart(BARE) is None


def test_only_validations_are_drawn_too(reported: ReportedRun) -> None:
    found = by_id(replace(reported, train=()))
    assert list(found) == ["loss"]
    assert names(found["loss"]) == ["validation"]


def test_a_hundred_thousand_records_are_few_points(reported: ReportedRun) -> None:
    train = [{"step": step, "loss": 1.0, "grad_norm": 1.0} for step in range(1, 100_001)]
    train[12_345]["loss"] = 99.0
    raw, mean, _ = by_id(replace(reported, train=train))["loss"].figure["data"]
    assert len(raw["x"]) < 2500
    assert len(mean["x"]) < 2500
    assert max(raw["y"]) == 99.0


def test_a_null_is_a_gap_and_counted(reported: ReportedRun) -> None:
    train = [*reported.train]
    train[4] = {**train[4], "loss": None}
    run = replace(reported, train=train)
    assert by_id(run)["loss"].figure["data"][0]["y"][4] is None
    assert num_not_finite(run.train) == 1
    assert num_not_finite([{"loss": float("nan")}]) == 1


def test_gradients_far_apart_are_drawn_on_a_logarithmic_axis(reported: ReportedRun) -> None:
    assert "type" not in by_id(reported)["grad_norm"].figure["layout"]["yaxis"]
    train = [*reported.train[:-1], {**reported.train[-1], "grad_norm": 500.0}]
    wide = by_id(replace(reported, train=train))["grad_norm"]
    assert wide.figure["layout"]["yaxis"]["type"] == "log"


def test_preferences_and_rewards_have_charts(reported: ReportedRun) -> None:
    more = {"rewards/chosen": 0.5, "rewards/accuracies": 0.75, "rewards/length/mean": 2.0}
    evals = [{"step": 0, "eval_rewards/accuracies": 0.5}]
    train = [{**record, **more} for record in reported.train]
    found = by_id(replace(reported, train=train, evals=evals))
    assert [trace["name"] for trace in found["rewards"].figure["data"]] == [
        {"by": "language", "en": "reward of the better", "zh": "较优回答奖励"},
        "rewards/length/mean",
    ]
    assert names(found["rewards-accuracies"])[-1] == "validation"


def test_lengths_and_times(reported: ReportedRun) -> None:
    lengths, times = length_chart(reported), time_chart(reported)
    assert lengths is not None
    assert lengths.figure["data"][0]["y"] == [80, 15, 5]
    assert times is not None
    assert sum(trace["x"][0] for trace in times.figure["data"]) == 60.0
