"""The screen of a run: plain lines in a pipe, a progress line on a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from luthier.cli.display import TrainScreen
from luthier.contracts.notice import Notice
from luthier.contracts.training import Progress, Sample, SampleRecord, StepRecord
from luthier.engine.precision import Precision
from luthier.models.adapters import ParameterCount

TRAIN = {
    "loss": 1.23456,
    "learning_rate": 2e-4,
    "grad_norm": 0.5,
    "tokens_per_second": 12_345.0,
    "memory_bytes": 3 * 2.0**30,
}
EVAL = {
    "eval_loss": 2.5,
    "eval_perplexity": 12.18,
    "eval_token_accuracy": 0.4,
    "eval_seconds": 2.0,
}


class Shown:
    """A screen and what it wrote."""

    def __init__(self, *, terminal: bool) -> None:
        self.file = io.StringIO()
        console = Console(
            file=self.file, width=100, force_terminal=terminal, highlight=False, color_system=None
        )
        self.screen = TrainScreen(console)

    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()


@pytest.fixture
def pipe() -> Shown:
    return Shown(terminal=False)


@pytest.fixture
def terminal() -> Shown:
    return Shown(terminal=True)


def test_rewards_are_shown_where_answers_have_some(pipe: Shown):
    with pipe.screen as screen:
        screen.on_log(StepRecord(3, 0.5, TRAIN | {"reward": 0.25}))
        measured = {"eval_loss": -0.5, "eval_reward": 0.5, "eval_seconds": 2.0}
        screen.on_evaluation(StepRecord(3, 0.5, measured))
    shown = " ".join(pipe.lines())
    assert "reward +0.250" in shown
    assert "reward +0.500" in shown


def test_bits_per_byte_are_shown_where_they_were_measured(pipe: Shown):
    with pipe.screen as screen:
        screen.on_evaluation(StepRecord(10, 2.5, EVAL | {"eval_bits_per_byte": 1.25}))
    assert "perplexity 12.18  1.2500 bits per byte  (2.0 s)" in pipe.file.getvalue()


def test_a_run_in_a_pipe_is_a_line_a_record(pipe: Shown):
    with pipe.screen as screen:
        screen.say("Loading [b] x")
        screen.notice(Notice("flash_attn", "fa2", "sdpa", "no GPU"))
        screen.working("reading", 1, 2)
        screen.on_start(Progress(num_steps=8))
        screen.on_step(StepRecord(1, 0.25, {"loss": 2.0}))
        screen.on_log(StepRecord(10, 2.5, TRAIN))
        screen.on_evaluation(StepRecord(10, 2.5, EVAL))
        said = (Sample("Who?", "Two\nlines", "stop"), Sample("你好", "Hi [b]", "length"))
        screen.on_samples(SampleRecord(10, 2.5, said, 1.0))
        screen.on_checkpoint(10, "out/" + "long/" * 30 + "step-000010", 0.5)
        screen.on_end(Progress(step=10, num_steps=10))
    assert pipe.lines() == [
        "Loading [b] x",
        "note  flash_attn: fa2 -> sdpa (no GPU)",
        "step    10  epoch  2.50  loss 1.2346  lr 2.00e-04  grad norm 0.500  12.3k tokens/s  "
        "3.0 GiB",
        "step    10  epoch  2.50  validation loss 2.5000  perplexity 12.18  token accuracy 40.0 %  "
        "(2.0 s)",
        "step    10  Who? → Two lines",
        "step    10  你好 → Hi [b] …",
        "step    10  checkpoint out/" + "long/" * 30 + "step-000010",
    ]


def test_what_the_trainer_does_not_know_is_left_out(pipe: Shown):
    known = ("loss", "learning_rate", "memory_bytes")
    pipe.screen.on_log(StepRecord(1, 0.25, {name: TRAIN[name] for name in known}))
    assert pipe.lines() == ["step     1  epoch  0.25  loss 1.2346  lr 2.00e-04  3.0 GiB"]


def test_going_on_is_said(pipe: Shown):
    pipe.screen.on_start(Progress(step=5, num_steps=8))
    assert pipe.lines() == ["Going on after step 5"]


def test_a_signal_is_answered(pipe: Shown):
    pipe.screen.signalled("SIGINT")
    pipe.screen.signalled("SIGUSR1")
    assert pipe.lines() == [
        "SIGINT: writing a checkpoint after this micro-batch. Once more stops at once.",
        "SIGUSR1: writing a checkpoint after this step, and going on.",
    ]


def prepared(**counts: Any) -> Any:
    counts = {"dropped": {}, "truncated_rows": 0, "truncated_tokens": 0, **counts}
    split = {"rows": 1200, "tokens": 20_000, "supervised_tokens": 5_000, "max_length": 99}
    manifest = {"splits": {"train": split}, "counts": counts}
    return SimpleNamespace(manifest=manifest, folder=Path("cache/[x]"))


def test_the_data(pipe: Shown):
    pipe.screen.data(prepared())
    assert pipe.lines() == [
        "train 1,200 rows, 20.0k tokens, 25.0 % of them taught, longest 99",
    ]


def test_what_was_left_out_and_cut_is_counted(pipe: Shown):
    dropped = {"too_short": 3, "bad_row": 1}
    pipe.screen.data(prepared(dropped=dropped, truncated_rows=2, truncated_tokens=70))
    assert pipe.lines()[1:] == [
        "left out 4 rows: too_short 3, bad_row 1 (cache/[x]/rejected.jsonl)",
        "cut 2 rows over cutoff_len by 70 tokens",
    ]


def test_the_model(pipe: Shown):
    count = ParameterCount(trained=460_800, total=134_975_808)
    pipe.screen.model(count, torch.device("cpu"), Precision(torch.bfloat16, "cpu"))
    assert pipe.lines() == [
        "model 135.0M parameters, 460.8k of them trained (0.3 %), bf16 on cpu",
    ]


def test_a_run_on_a_terminal_is_a_line_that_moves(terminal: Shown):
    with terminal.screen as screen:
        screen.on_start(Progress(num_steps=8))
        screen.on_step(StepRecord(1, 0.25, {"loss": 2.0}))
        screen.on_log(StepRecord(1, 0.25, TRAIN))
        screen.on_step(StepRecord(2, 0.5, {"loss": 1.5}))
        bar = screen._bar
        assert bar is not None
        (task,) = bar.tasks
        assert (task.completed, task.total) == (2, 8)
        assert (
            task.fields["metrics"] == "loss 1.500 · lr 2.0e-04 · grad 0.50 · 12.3k tok/s · 3.0 GiB"
        )
        bar.refresh()
        screen.on_evaluation(StepRecord(2, 0.5, EVAL))
    written = terminal.file.getvalue()
    assert "epoch 0.50" in written
    assert "step 2 of 8" in written
    assert "validation loss 2.5000" in written
    assert "loss 1.2346" not in written  # the plain line of a pipe
    assert screen._bar is None


def test_an_error_takes_the_progress_line_away(terminal: Shown):
    def fail() -> None:
        with terminal.screen as screen:
            screen.working("reading", 1, 2)
            screen.on_start(Progress(num_steps=8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert terminal.screen._bar is None
    assert terminal.screen._status is None


def test_work_that_can_be_counted_shows_on_a_terminal(terminal: Shown):
    with terminal.screen as screen:
        screen.working("tokenising", 1_000, 2_000)
        assert screen._status is not None
        assert "tokenising 1,000 of 2,000" in str(screen._status.status)
        screen.working("writing", 0, 1)
        assert "writing[/]" in str(screen._status.status)
        screen.working("read", 3_000, 0)
        assert "read 3,000[/]" in str(screen._status.status)
        screen.working("comparing", 0, 0)
        assert "comparing[/]" in str(screen._status.status)
        screen.data(prepared())
        assert screen._status is None
