"""Callbacks in real runs: metrics, stops, errors and states, and a run that stays what it is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from luthier.contracts.training import StepRecord
from luthier.core.errors import RunError, SettingsError
from luthier.recipes.callback_file import load_callbacks
from luthier.recipes.callbacks import Callbacks
from luthier.recipes.events import read_events

MEASURES = """
import random
import numpy as np
import torch

class Measures:
    def __init__(self):
        self.seen = []

    def on_start(self, progress, control):
        self.seen.append(("start", progress.step))
        progress.step = 100  # Its own copy.

    def on_log(self, record, control):
        random.random(); np.random.rand(); torch.rand(1)
        return {"loss_squared": record.metrics["loss"] ** 2}

    def on_evaluation(self, record, control, model, tokenizer):
        assert not model.training
        assert torch.is_inference_mode_enabled()
        ids = tokenizer("Red, green", return_tensors="pt").input_ids
        torch.manual_seed(record.step)
        draw = np.float32(torch.rand(1).item())
        return {"mean_logit": float(model(ids).logits.mean()), "draw": draw}

    def on_checkpoint(self, step, path, control):
        (control.folder / f"seen-{step}").write_text(path, encoding="utf-8")

    def on_end(self, progress, control):
        control.stop("it is over anyway")
        (control.folder / "seen").write_text(f"{self.seen} {control.settings['seed']}")
"""

STOPS = """
class Stops:
    def on_step(self, record, control):
        if record.step == 3:
            control.stop("three are enough")
            control.stop("said twice")
"""

COUNTS = """
class Counts:
    def __init__(self):
        self.steps = 0

    def on_step(self, record, control):
        self.steps += 1

    def on_log(self, record, control):
        return {"counted": self.steps}

    def get_state(self):
        return {"steps": self.steps}

    def set_state(self, state):
        self.steps = state["steps"]
"""


@pytest.fixture
def mine(write_file: Any) -> Any:
    def write(source: str) -> str:
        name = source.split("class ", 1)[1].split(":", 1)[0]
        return f"{write_file(f'{name.lower()}.py', source)}:{name}"

    return write


def by_kind(metrics: list[dict[str, Any]], kind: str, name: str) -> list[Any]:
    return [record[name] for record in metrics if record["kind"] == kind]


def test_metrics_are_logged_shown_and_change_nothing(small_run, mine: Any):
    state = random.getstate()
    settings = {"eval_steps": 4, "lora_dropout": 0.1, "save_steps": 4}
    with_it = small_run.train(
        callbacks=[mine(MEASURES)], output_dir=str(small_run.folder / "a"), **settings
    )
    random.setstate(state)
    without = small_run.train(output_dir=str(small_run.folder / "b"), **settings)
    metrics = with_it.metrics()
    losses = by_kind(metrics, "train", "loss")
    assert losses == without.losses()
    name = "adapter_model.safetensors"
    left, right = (load_file(run.folder / name) for run in (with_it, without))
    assert all(left[tensor].equal(right[tensor]) for tensor in right)
    assert by_kind(metrics, "train", "loss_squared") == [loss**2 for loss in losses]
    draws = by_kind(metrics, "eval", "draw")
    assert len(set(draws)) == len(draws) == 3
    assert len(set(by_kind(metrics, "eval", "mean_logit"))) > 1, "the model that is trained"
    assert [r.metrics["loss_squared"] for r in with_it.screen.logs] == [x**2 for x in losses]
    assert any("mean_logit" in line and "step     4" in line for line in with_it.screen.said)
    assert (with_it.folder / "seen").read_text() == "[('start', 0)] 42"
    assert (with_it.folder / "seen-4").read_text().endswith("step-000004")
    assert not read_events(with_it.folder / "events.jsonl")
    (described,) = with_it.manifest()["callbacks"]
    assert described["name"] == "Measures"


def test_a_stop_finishes_the_run_early_with_a_checkpoint(small_run, mine: Any):
    callbacks = [mine(STOPS)]
    first = small_run.train(callbacks=callbacks, save_strategy="no")
    progress = first.result.progress
    assert (progress.step, progress.ended_early, first.result.finished) == (3, True, True)
    (event,) = read_events(first.folder / "events.jsonl")
    assert (event["kind"], event["step"]) == ("callback_stop", 3)
    assert event["message"] == "Stops ends the run: three are enough"
    assert [path.name for path in (first.folder / "checkpoints").iterdir()] == ["step-000003"]
    again = small_run.train("--resume_from_checkpoint", callbacks=callbacks)
    assert again.screen.steps == [], "it stays ended"
    assert again.result.finished


def test_a_state_goes_on_where_it_was(small_run, mine: Any):
    callbacks = [mine(COUNTS)]
    whole = small_run.train(callbacks=callbacks, output_dir=str(small_run.folder / "a"))
    first = small_run.train(callbacks=callbacks, stop_after=3)
    small_run.train("--resume_from_checkpoint", callbacks=callbacks)
    for run in (whole, first):
        assert by_kind(run.metrics(), "train", "counted") == list(range(1, 9))
    later = small_run.train(output_dir=str(small_run.folder / "c"), stop_after=3)
    small_run.train(
        "--resume_from_checkpoint", output_dir=str(small_run.folder / "c"), callbacks=callbacks
    )
    assert [r.get("counted") for r in later.metrics() if r["kind"] == "train"] == [
        *([None] * 3), *range(1, 6)
    ]  # fmt: skip


FAILS = {
    "on_step": ("def on_step(self, record, control): 1 / (record.step - 3)", 3, "ZeroDivision"),
    "on_start": ("def on_start(self, progress, control): [][0]", 0, "IndexError"),
    "on_checkpoint": ("def on_checkpoint(self, step, path, control): [][0]", 4, "IndexError"),
    "on_end": ("def on_end(self, progress, control): [][0]", 8, "IndexError"),
    "a state that is no JSON": (
        "def on_step(self, record, control): pass\n"
        "    def set_state(self, state): pass\n"
        "    def get_state(self): return {'a': {1, 2}}", 4, "TypeError.*not JSON serializable"),
    "a state that is not taken": (
        "def on_step(self, record, control): pass\n"
        "    def get_state(self): return {}\n"
        "    def set_state(self, state): [][0]", -1, "IndexError"),
}  # fmt: skip


@pytest.mark.parametrize(("source", "step", "said"), FAILS.values(), ids=FAILS.keys())
def test_an_error_ends_the_run_after_a_checkpoint(
    small_run, mine: Any, source: str, step: int, said: str
):
    callbacks = [mine(f"class Fails:\n    {source}\n")]
    settings = {"callbacks": callbacks, "save_steps": 4, "save_total_limit": 1}
    if step < 0:
        small_run.train(stop_after=4, **settings)
        flags, step = ("--resume_from_checkpoint",), 4
    else:
        flags = ()
    with pytest.raises(RunError, match=rf"fails.py:\d: the callback Fails failed in .*{said}"):
        small_run.train(*flags, **settings)
    folder = small_run.folder / "out"
    newest = sorted((folder / "checkpoints").glob("*")) if step else []
    assert not (folder / "adapter_model.safetensors").exists()
    if step:
        assert newest[-1].name.startswith(f"step-{step:06}")
        again = small_run.train("--resume_from_checkpoint", save_steps=4)
        assert again.result.finished
        assert json.loads((folder / "manifest.json").read_text())["outcome"]["steps"] == 8


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("3", "TypeError: it returned 3, which is no dict of metrics"),
        ("{'a': 'b'}", "TypeError: the metric 'a' is 'b', which is no number"),
        ("{1: 2.0}", "TypeError: the metric 1 is 2.0, which is no number under a name"),
        ("{'a': float('nan')}", "ValueError: the metric a is nan; give finite numbers"),
        ("{'loss': 1.0}", "ValueError: the name loss is taken"),
        ("{'step': 1.0}", "ValueError: the name step is taken"),
        ("{'first': 1.0}", "ValueError: the name first is taken"),
    ],
)
def test_metrics_that_can_not_be_logged(
    mine: Any, recorder: Any, tmp_path: Path, returned: str, said: str
):
    named = [
        mine(f"class {name}:\n    def on_log(self, record, control): return {value}\n")
        for name, value in (("First", "{'first': True}"), ("Second", returned), ("Third", "3"))
    ]
    callbacks = Callbacks(load_callbacks(named), [recorder], tmp_path, {}, recorder.say)
    callbacks.on_log(StepRecord(2, 0.5, {"loss": 3.0}))
    assert recorder.logs == [StepRecord(2, 0.5, {"loss": 3.0, "first": 1.0})], (
        "what was good is kept"
    )
    assert callbacks.error is not None
    assert f"second.py:2: the callback Second failed in on_log at step 0: {said}" in str(
        callbacks.error
    )


def test_callbacks_see_the_averaged_weights(small_run, mine: Any):
    source = """
class Sum:
    def on_evaluation(self, record, control, model, tokenizer):
        trained = [p for p in model.parameters() if p.requires_grad]
        return {"weights": float(sum(p.double().sum() for p in trained))}
"""
    settings = {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
    run = small_run.train(callbacks=[mine(source)], **settings)
    saved = load_file(run.folder / "adapter_model.safetensors")
    total = float(sum(tensor.double().sum() for tensor in saved.values()))
    assert by_kind(run.metrics(), "eval", "weights")[-1] == pytest.approx(total, rel=1e-6)


def test_the_example_of_the_docs(small_run, mine: Any):
    page = (Path(__file__).parents[2] / "docs/watching.md").read_text(encoding="utf-8")
    source = page.split("```python\n", 1)[1].split("```", 1)[0]
    run = small_run.train(callbacks=[mine(source)], max_steps=2)
    sure = by_kind(run.metrics(), "eval", "confidence")
    assert all(0 < value < 1 for value in sure)
    assert by_kind(run.metrics(), "eval", "best_confidence")[-1] == max(sure)


def test_trainer_transformers_has_none(small_run, mine: Any):
    with pytest.raises(SettingsError, match="callbacks is set, and only luthier's own loop has it"):
        small_run.train(callbacks=[mine(STOPS)], trainer="transformers")


def test_a_missing_file_is_found_before_the_model_is_loaded(small_run, tmp_path: Path):
    with pytest.raises(SettingsError, match="the file of a callback can't be read"):
        small_run.train(callbacks=[f"{tmp_path / 'no.py'}:A"])
    assert not (small_run.folder / "out").exists()
