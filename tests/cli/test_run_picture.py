"""The picture of a run at work: progress, curve, newest numbers, answers and events."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from luthier.cli.run_picture import (
    draw_run,
    evaluation_words,
    metric_words,
    new_lines,
    newest_samples,
)
from luthier.recipes.run_record import RunRecord

TRAIN = [
    {
        "kind": "train",
        "step": step,
        "epoch": step / 10,
        "loss": 3.0 - step / 10,
        "elapsed_seconds": 2.0 * step,
        "tokens_per_second": 12345.0,
    }
    for step in range(1, 5)
]
EVALUATIONS = [
    {"kind": "eval", "step": 2, "eval_loss": 1.5},
    {"kind": "eval", "step": 4, "eval_loss": 1.75},
]


def a_run(**parts: Any) -> RunRecord:
    kinds = ("train", "evaluations", "saves", "samplings", "events", "samples")
    given: dict[str, Any] = {
        "folder": Path("out"),
        "settings": {"run": {"stage": "sft"}, "training": {"num_train_epochs": 2.0}},
        "manifest": {},
        "state": "running",
        **{kind: tuple(parts.pop(kind, ())) for kind in kinds},
    }
    return RunRecord(**{**given, **parts})


def drawn(run: RunRecord, width: int = 100, silent_s: float = 0.0) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, color_system=None)
    console.print(draw_run(run, width, silent_s, "process 4711 on box"))
    return file.getvalue().splitlines()


def test_the_whole_picture() -> None:
    samples = [
        {"step": 2, "prompt": "Hi", "answer": "old"},
        {"step": 4, "prompt": "Hi\nthere", "answer": "\x1b[31mred", "finish_reason": "length"},
    ]
    events = [{"step": 3, "message": "the loss leapt"}]
    run = a_run(train=TRAIN, evaluations=EVALUATIONS, samples=samples, events=events)
    head, steps, *curve, metrics, evaluation, sample, event = drawn(run, silent_s=6.0)
    assert head == "out  sft  running (process 4711 on box; last line 6.0 s ago)"
    # 16 steps of 2 s are left, and 6 s of them have passed.
    assert steps.strip(" ━╸╺") == "step 4 of 20, about 26 s left"
    assert len(curve) == 8
    assert curve[0].split()[0] == "2.900"
    assert metrics == "epoch 0.40  loss 2.6000  lr -  grad norm -  12.3k tokens/s"
    assert evaluation == "validation loss 1.7500  (best 1.5000, step 2)"
    assert sample == "Hi⏎there → ␛[31mred …"
    assert event == "step 3: the loss leapt"


def test_before_the_first_line_of_the_log() -> None:
    head, line = drawn(a_run())
    assert head.endswith("running (process 4711 on box)")
    assert line == "before the first line of the log"


def test_a_run_at_rest_has_neither_a_process_nor_time_left() -> None:
    text = "\n".join(drawn(a_run(train=TRAIN, state="broken off")))
    assert "broken off" in text
    assert "4711" not in text
    assert "left" not in text


def test_a_narrow_terminal_folds_nothing_but_the_head() -> None:
    samples = [{"step": 4, "prompt": "Hi", "answer": "long " * 50}]
    run = a_run(train=TRAIN, evaluations=EVALUATIONS, samples=samples)
    lines = drawn(run, width=40)
    assert max(map(len, lines)) <= 40
    assert lines[-1].endswith("…")


def test_losses_that_are_not_finite_are_left_out_of_the_curve() -> None:
    broken = [{**record, "loss": None} for record in TRAIN[2:]]
    lines = drawn(a_run(train=TRAIN[:2] + broken))
    assert lines[2].split()[0] == "2.900"
    assert "loss -" in lines[-1]


def test_lines_come_in_the_order_of_the_steps_and_once() -> None:
    before = a_run(train=TRAIN[:1])
    samples = [{"step": 2, "prompt": "Hi", "answer": "Ho"}]
    events = [{"step": 3, "kind": "outlier"}]
    now = a_run(train=TRAIN[:3], evaluations=EVALUATIONS[:1], samples=samples, events=events)
    assert [str(line)[:16].strip() for line in new_lines(None, before)] == [
        "out  sft  runnin",
        "step     1  epoc",
    ]
    lines = [str(line) for line in new_lines(before, now)]
    assert [line.split()[1].rstrip(":") for line in lines] == ["2", "2", "2", "3", "3"]
    assert lines[1] == "step     2  validation loss 1.5000"
    assert lines[2] == "step     2  Hi → Ho"
    assert lines[4] == "step 3: outlier"
    assert list(new_lines(now, now)) == []


def test_a_run_that_went_back_is_told_from_where_it_goes_on() -> None:
    before = a_run(train=TRAIN)
    again = [*TRAIN[:2], {**TRAIN[2], "loss": 1.0}]
    lines = [str(line) for line in new_lines(before, a_run(train=again))]
    assert lines[0] == "The run went back to step 2"
    assert lines[1].startswith("step     3")
    assert len(lines) == 2
    lines = [str(line) for line in new_lines(before, a_run())]
    assert lines == ["The run went back to step 0"]


def test_other_objectives_have_words_of_their_own() -> None:
    assert "rewards/margins +0.500" in metric_words({"rewards/margins": 0.5})
    assert metric_words({"memory_bytes": 1024.0}).endswith("1.0 KiB")
    words = evaluation_words({"eval_loss": None, "eval_rewards/accuracies": 0.75})
    assert words == "validation loss -  pairs ranked right 75.0%"


@pytest.mark.parametrize("samples", [[], [{"step": 1}, {"step": 3}, {"step": 3}]])
def test_the_newest_answers_alone_are_shown(samples: list[Any]) -> None:
    assert newest_samples(a_run(samples=samples)) == samples[1:]
