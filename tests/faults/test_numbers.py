"""Numbers that go wrong: passed over and named, gone back from, and in the end reported."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fault_injection.harness import Run
from fault_injection.inputs import write_rows
from fault_injection.report import Report
from fault_injection.scenarios import judge
from fault_injection.workshop import Workshop

DIVERGED = 5
ROW_BY_ROW = {
    "packing": False,
    "packing_window": None,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "eval_steps": None,
    "val_file": None,
    "save_steps": 1,
    "prepared_dir": "prepared",
}
"""A step a row: what happens at a step happens because of its row."""


def poisoned_run(workshop: Workshop, path: Path, bad_rows: list[int], **settings: Any) -> Run:
    """Return a run with rows whose tokens the model knows no number for."""
    write_rows(path, 24, poisoned=bad_rows)
    model = str(workshop.inputs / "poisoned")
    values = {"model_name_or_path": model, "train_file": str(path), "max_steps": 24}
    return workshop.run(**{**ROW_BY_ROW, **values, **settings})


def weights_are_finite(run: Run) -> bool:
    import torch
    from safetensors.torch import load_file

    tensors = load_file(run.folder / "adapter_model.safetensors").values()
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def events(run: Run, kind: str) -> list[dict[str, Any]]:
    return [event for event in run.outcome()["events"] if event["kind"] == kind]


def origins(found: list[dict[str, Any]]) -> list[str]:
    return [row["origin"] for event in found for row in event["rows"]]


def test_rows_that_give_no_number_are_passed_over_and_named(
    workshop: Workshop, tmp_path: Path, report: Report
):
    path = tmp_path / "rows.jsonl"
    run = poisoned_run(workshop, path, [3, 11, 17])
    assert run.train() == 0, run.said()
    assert weights_are_finite(run)
    bad = events(run, "nonfinite")
    assert sorted(origins(bad)) == sorted(f"{path}:{row + 1}" for row in (3, 11, 17))
    for event in bad:
        assert f"the loss of step {event['step']} is nan; the step was not taken" in run.said()
    steps = {event["step"] for event in bad}
    for record in run.outcome()["metrics"]:
        assert record.get("skipped_steps", 0) == (record["step"] in steps)
        assert (record["loss"] == 0.0) == (record["step"] in steps)
    report("rows that give a NaN loss", run.children[-1].line("the step was not taken"), tries=3)


def test_a_run_with_such_rows_is_killed_and_goes_on(workshop: Workshop, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    whole = poisoned_run(workshop, path, [3, 11, 17], save_steps=5)
    assert whole.train() == 0, whole.said()
    run = poisoned_run(workshop, path, [3, 11, 17], save_steps=5)
    for call in (9, 7):
        fault = {"function": "clip_gradients", "call": call, "do": "SIGKILL"}
        flags = ["--resume_from_checkpoint"] if run.children else []
        assert run.train(*flags, faults=[fault]) == -signal.SIGKILL
    run.go_on()
    assert run.outcome() == whole.outcome()


def test_too_many_in_a_row_go_back_and_then_end_the_run(
    workshop: Workshop, tmp_path: Path, report: Report
):
    path = tmp_path / "rows.jsonl"
    run = poisoned_run(workshop, path, [3, 11, 17], max_nonfinite_steps=0)
    assert run.train() == DIVERGED
    (back,) = events(run, "rollback")
    assert "going back to step-" in back["message"]
    assert "the rows of steps " in back["message"]
    assert back["message"] in run.said()
    last = events(run, "nonfinite")[-1]
    assert f"error: the loss of step {last['step']} is nan; the step was not taken" in run.said()
    assert "Lower learning_rate" in run.said()
    assert "Traceback" not in run.said()
    assert run.leftovers() == []
    seen = run.children[-1].line("error: ")
    report("NaN again and again: back to a checkpoint, then stopped", seen)


@pytest.mark.slow
def test_going_back_often_enough_brings_the_run_to_its_end(workshop: Workshop, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    settings = {"max_nonfinite_steps": 0, "max_rollbacks": 3}
    run = poisoned_run(workshop, path, [3, 11, 17], **settings)
    assert run.train() == 0, run.said()
    assert weights_are_finite(run)
    assert len(events(run, "rollback")) == 3
    assert run.leftovers() == []


def test_no_checkpoint_to_go_back_to(workshop: Workshop, tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    run = poisoned_run(workshop, path, list(range(24)))
    assert run.train() == DIVERGED
    assert "is nan; the step was not taken, nor were the 3 before it" in run.said()
    assert len(events(run, "nonfinite")) == 4
    assert not (run.folder / "adapter_model.safetensors").exists()


def spiking_run(workshop: Workshop, path: Path, action: str) -> Run:
    """Return a run of two epochs whose row 5 has an answer like no other."""
    write_rows(path, 24, answer="Red.")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[5] = json.dumps({"instruction": "Name 5 colours.", "output": "#!$ %& (;) [=] {?} @~"})
    path.write_text("\n".join(lines), encoding="utf-8")
    settings = {"train_file": str(path), "max_steps": 48, "on_loss_spike": action}
    return workshop.run(**{**ROW_BY_ROW, **settings, "lora_dropout": 0.0, "save_steps": 4})


@pytest.mark.parametrize("action", [pytest.param("warn", marks=pytest.mark.slow), "rollback"])
def test_a_loss_that_jumps(workshop: Workshop, tmp_path: Path, action: str, report: Report):
    path = tmp_path / "rows.jsonl"
    run = spiking_run(workshop, path, action)
    assert run.train() == 0, run.said()
    spikes = events(run, "spike")
    assert f"{path}:6" in origins(spikes)
    step = spikes[0]["step"]
    assert f"the loss of step {step} jumped to " in run.said()
    backs = events(run, "rollback")
    assert len(backs) == (action == "rollback")
    if backs:
        assert f"the rows of steps {step - 1}, {step} will be passed over" in backs[0]["message"]
        losses = {r["step"]: r["loss"] for r in run.outcome()["metrics"] if r["kind"] == "train"}
        assert losses[step] == 0.0
    report(f"a loss that jumps, on_loss_spike: {action}", run.children[-1].line("jumped to"))


def test_a_validation_loss_that_no_longer_falls_ends_the_run(workshop: Workshop, report: Report):
    settings = {"early_stopping_patience": 2, "eval_steps": 1, "learning_rate": 0.3}
    whole = workshop.whole(**settings)
    assert "ended early" in whole.run.said()
    (event,) = events(whole.run, "early_stop")
    assert whole.outcome["progress"]["step"] == event["step"] < 12
    assert (whole.run.folder / "adapter_model.safetensors").is_file()

    run = workshop.run(**settings)
    call = event["step"] - 1
    fault = {"function": "clip_gradients", "call": call, "do": "SIGKILL"}
    assert run.train(faults=[fault]) == -signal.SIGKILL
    run.go_on()
    assert judge(run, whole) == ()
    report("a validation loss that rises, early stopping", run.children[-1].line("the run ends"))
