"""What a run came to, and the exact command that goes on with it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from luthier.cli.summary import print_summary
from luthier.contracts.training import Progress
from luthier.recipes.train import TrainResult


def evaluation(step: int, loss: float) -> dict[str, float]:
    return {
        "step": step,
        "eval_loss": loss,
        "eval_perplexity": 2.0,
        "eval_token_accuracy": 0.25,
    }


def shown(result: TrainResult, *args: str, width: int = 60) -> str:
    file = io.StringIO()
    print_summary(Console(file=file, width=width, highlight=False), result, args)
    return file.getvalue()


def result_of(step: int, *evaluations: dict[str, float], folder: str = "out") -> TrainResult:
    progress = Progress(step=step, num_steps=8, num_supervised_seen=1234)
    return TrainResult(Path(folder), progress, evaluations, 65.0)


def test_a_finished_run():
    text = shown(result_of(8, evaluation(0, 3.5), evaluation(4, 9.0), evaluation(8, 1.25)))
    assert text.splitlines() == [
        "validation      before  after step 8",
        "loss            3.5000        1.2500",
        "perplexity        2.00          2.00",
        "token accuracy   25.0%         25.0%",
        "Done in 1 min 05 s: 8 steps, 1,234 tokens taught.",
        "  model   out",
        "  talk    luthier chat out",
    ]


def test_bits_per_byte_are_compared_where_they_were_measured():
    first, last = (evaluation(step, 1.0) | {"eval_bits_per_byte": 2 - step / 8} for step in (0, 8))
    assert "bits per byte   2.0000        1.0000\n" in shown(result_of(8, first, last))


def test_a_model_without_a_chat_template_is_not_to_be_talked_to():
    text = shown(replace(result_of(8), can_chat=False))
    assert "  model   out" in text
    assert "luthier chat" not in text


def test_before_is_said_of_the_untrained_model_alone():
    text = shown(result_of(8, evaluation(4, 3.5), evaluation(8, 1.25)))
    assert "after step 4  after step 8" in text
    assert "before" not in text


@pytest.mark.parametrize("evaluations", [[], [evaluation(0, 1.0)]])
def test_one_evaluation_is_no_comparison(evaluations: list[dict[str, float]]):
    assert "validation" not in shown(result_of(8, *evaluations))


def test_a_folder_is_printed_as_it_is():
    folder = "out/[bold]a b/" + "long" * 20
    lines = shown(result_of(8, folder=folder)).splitlines()
    assert lines[-2] == f"  model   {folder}"
    assert lines[-1] == f"  talk    luthier chat '{folder}'"


@pytest.mark.parametrize(
    ("args", "command"),
    [
        (["a.yaml"], "a.yaml --resume_from_checkpoint"),
        (["a.yaml", "--resume_from_checkpoint"], "a.yaml --resume_from_checkpoint"),
        (
            ["--resume_from_checkpoint", "out/checkpoints/step-2", "--config", "a.yaml"],
            "--config a.yaml --resume_from_checkpoint",
        ),
        (["--resume_from_checkpoint=x", "a.yaml"], "a.yaml --resume_from_checkpoint"),
        (
            ["--overwrite_output_dir", "true", "a.yaml", "--fp16"],
            "a.yaml --fp16 --resume_from_checkpoint",
        ),
        (["--overwrite_output_dir", "a.yaml"], "a.yaml --resume_from_checkpoint"),
        (
            ["a.yaml", "--train_file", "[a.json, b c.json]", "--output_dir", "d" * 80],
            f"a.yaml --train_file '[a.json, b c.json]' --output_dir {'d' * 80} "
            "--resume_from_checkpoint",
        ),
    ],
)
def test_the_command_that_goes_on(args: list[str], command: str):
    lines = shown(result_of(5), *args).splitlines()
    assert lines == ["Stopped after step 5 of 8.", f"  go on   luthier train {command}"]


def test_stopped_before_the_first_step_there_is_nothing_to_go_on_from():
    result = replace(result_of(0), can_go_on=False)
    lines = shown(result, "a.yaml", "--resume_from_checkpoint").splitlines()
    assert lines == [
        "Stopped before the first step; there is no checkpoint.",
        "  again   luthier train a.yaml --overwrite_output_dir",
    ]
