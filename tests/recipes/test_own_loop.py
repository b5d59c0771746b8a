"""The loop as a recipe wires it: numbers that go wrong, and settings that change on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from luthier.core.errors import RunError, SettingsError
from luthier.engine.guards import DivergedError
from luthier.recipes.events import read_events

POISON = "\u2603"


@pytest.fixture
def poisoned_model(tiny_llama: Any, load_tiny: Callable[[str], Any]) -> Path:
    """A Llama whose embedding of one character is no number; its head is a matrix of its own."""
    folder = tiny_llama("poisoned", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    for token in load_tiny("chatml").encode(POISON, add_special_tokens=False):
        weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def rows_file(small_run: Any, *poisoned: int, count: int = 12) -> str:
    path = small_run.folder / "poisoned.jsonl"
    rows = [
        {"instruction": f"Name {i} colours{POISON if i in poisoned else ''}.", "output": "Red."}
        for i in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def finite(folder: Path) -> bool:
    tensors = load_file(folder / "adapter_model.safetensors")
    return all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def settings_for(small_run: Any, model: Path, *poisoned: int, **settings: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "train_file": rows_file(small_run, *poisoned),
        "gradient_accumulation_steps": 1,
        "per_device_train_batch_size": 1,
        "num_train_epochs": 1,
        "save_steps": 2,
        **settings,
    }


def test_a_row_that_gives_no_number_is_passed_over_and_named(small_run, poisoned_model: Path):
    trained = small_run.train(**settings_for(small_run, poisoned_model, 5))
    assert trained.result.finished
    assert finite(trained.folder)
    (event,) = read_events(trained.folder / "events.jsonl")
    assert event["kind"] == "nonfinite"
    (row,) = event["rows"]
    assert row["origin"].endswith("poisoned.jsonl:6")
    assert any(notice.setting == "nonfinite" for notice in trained.screen.notices)
    skipped = [m["step"] for m in trained.metrics() if m.get("skipped_steps")]
    assert skipped == [event["step"]]
    assert "nonfinite" in {notice["setting"] for notice in trained.manifest()["notices"]}


def test_too_many_send_the_run_back_once_and_then_end_it(small_run, poisoned_model: Path):
    """Every row is bad: going back does not help, and the run ends with a report."""
    settings = settings_for(small_run, poisoned_model, *range(4, 12))
    # Eight of twelve are bad: in any order two stand in a row, and before them a good one.
    settings |= {"max_nonfinite_steps": 1, "save_steps": 1}
    with pytest.raises(DivergedError, match=r"the loss of step \d+ is nan"):
        small_run.train(**settings)
    kinds = [e["kind"] for e in read_events(small_run.folder / "out" / "events.jsonl")]
    assert kinds.count("rollback") == 1
    assert kinds[-1] == "nonfinite"


def test_going_back_passes_over_what_led_astray(small_run, poisoned_model: Path):
    """Two bad steps in a row are one too many; without their rows the run comes to its end."""
    settings = settings_for(small_run, poisoned_model, 0, 1, 2, 3, 4, 5, max_nonfinite_steps=1)
    settings |= {"save_steps": 1, "max_rollbacks": 9}
    trained = small_run.train(**settings)
    assert trained.result.finished
    assert finite(trained.folder)
    events = read_events(trained.folder / "events.jsonl")
    back = [event for event in events if event["kind"] == "rollback"]
    assert back, "no two of the six bad rows came one after the other: choose another seed"
    state = sorted((trained.folder / "checkpoints").glob("step-*"))[-1] / "state.json"
    passed = json.loads(state.read_text(encoding="utf-8"))["parts"]["guards"]["pass_over"]
    assert len(passed) >= 3
    records = [m["step"] for m in trained.metrics() if m["kind"] == "train"]
    assert records == sorted(set(records)), "no step stands in the log twice"


def test_those_who_watch_go_back_with_the_run(small_run, poisoned_model: Path, write_file: Any):
    board = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    counts = """
class Counts:
    def __init__(self):
        self.steps = 0
        self.starts = 0

    def on_start(self, progress, control):
        self.starts += 1

    def on_step(self, record, control):
        self.steps += 1

    def on_log(self, record, control):
        return {"counted": self.steps, "starts": self.starts}

    def on_evaluation(self, record, control, model, tokenizer):
        return {"seen": float(sum(p.double().sum() for p in model.parameters() if p.requires_grad))}

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]
"""
    settings = settings_for(small_run, poisoned_model, 0, 1, 2, 3, 4, 5, max_nonfinite_steps=1)
    settings |= {"save_steps": 1, "max_rollbacks": 9, "eval_steps": 4, "log_histograms": 3}
    settings |= {"report_to": "tensorboard"}
    callback = f"{write_file('counts.py', counts)}:Counts"
    trained = small_run.train(callbacks=[callback], **settings)
    records = [m for m in trained.metrics() if m["kind"] == "train"]
    assert records[-1]["starts"] > 1, "it went back"
    assert [m["counted"] for m in records] == [m["step"] for m in records]
    saved = load_file(trained.folder / "adapter_model.safetensors")
    total = sum(float(tensor.double().sum()) for tensor in saved.values())
    (*_, seen) = (m["seen"] for m in trained.metrics() if m["kind"] == "eval")
    assert seen == pytest.approx(total, rel=1e-6), "the model that was loaded anew"
    folder = str(trained.folder / "logs" / "tensorboard")
    found = board.EventAccumulator(folder, size_guidance={board.HISTOGRAMS: 0}).Reload()
    assert [event.step for event in found.Scalars("train/loss")] == [m["step"] for m in records]
    name = found.Tags()["histograms"][0]
    drawn = [event.step for event in found.Histograms(name)]
    assert drawn == sorted(set(drawn))
    assert set(drawn) <= {3, 6, 9, 12}


def test_a_changed_batch_size_trains_each_row_of_the_epoch_once(small_run):
    small_run.train("--num_train_epochs", "1", "--save_steps", "1", stop_after=2)
    again = small_run.train(
        *("--num_train_epochs", "1", "--per_device_train_batch_size", "3"),
        *("--gradient_accumulation_steps", "1", "--resume_from_checkpoint", "--save_steps", "1"),
        *("--allow_change", "per_device_train_batch_size,gradient_accumulation_steps"),
    )
    assert again.result.finished
    assert again.result.progress.num_rows_seen == 13
    assert again.result.progress.step == again.result.progress.num_steps == 2 + 2
    said = [str(notice) for notice in again.screen.notices]
    assert "per_device_train_batch_size: 2 -> 3 (allow_change)" in said
    (account,) = [line for line in said if line.startswith("allow_change")]
    assert "8 of this epoch's 13 rows were trained on before; the other 5 follow" in account
    text = (again.folder / "run.yaml").read_text(encoding="utf-8")
    assert "allow_change" not in text


def test_changed_data_begins_its_epoch_anew(small_run):
    small_run.train("--num_train_epochs", "1", stop_after=2)
    other = rows_file(small_run, count=10)
    again = small_run.train(
        *("--num_train_epochs", "1", "--train_file", other, "--resume_from_checkpoint"),
        *("--allow_change", "data"),
    )
    assert again.result.finished
    assert again.result.progress.num_rows_seen == 8 + 10
    (account,) = [n for n in again.screen.notices if n.setting == "allow_change"]
    assert "none of this epoch's 10 rows" in account.reason


def test_a_changed_weight_decay_is_the_new_one(small_run):
    small_run.train(stop_after=2)
    again = small_run.train(
        "--resume_from_checkpoint", "--weight_decay", "0.5", "--allow_change", "weight_decay"
    )
    newest = sorted((again.folder / "checkpoints").glob("step-*"))[-1]
    groups = json.loads((newest / "optimizer.json").read_text(encoding="utf-8"))["param_groups"]
    assert 0.5 in [group["weight_decay"] for group in groups]


def test_allow_change_needs_a_checkpoint(small_run):
    with pytest.raises(SettingsError, match="allow_change is set, and the run goes on from no"):
        small_run.train("--allow_change", "seed")


def test_a_run_ends_early_and_stays_ended(small_run):
    settings = {"early_stopping_patience": 1, "eval_steps": 1, "learning_rate": 50.0}
    first = small_run.train(**settings)
    assert first.result.finished
    assert first.result.progress.ended_early
    assert first.result.progress.step < first.result.progress.num_steps
    again = small_run.train("--resume_from_checkpoint", **settings)
    assert again.screen.steps == []
    assert again.result.finished
    kinds = [e["kind"] for e in read_events(first.folder / "events.jsonl")]
    assert kinds == ["early_stop"]


def test_two_runs_do_not_share_a_folder(small_run):
    from luthier.core.lock import locked_folder

    first = small_run.train()
    there = "another process is writing here: process"
    with locked_folder(first.folder, print), pytest.raises(RunError, match=there):
        small_run.train("--resume_from_checkpoint")
