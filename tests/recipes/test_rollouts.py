"""Training on the model's own answers, from a settings file to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from luthier.core.errors import RunError, SettingsError
from luthier.engine.meter import PARTS
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.inspection import inspect_run
from luthier.recipes.reproduce import open_run, reproduce, verify
from luthier.recipes.rollouts import check_rollouts, with_answers
from luthier.recipes.stages import STAGES, stage_of
from luthier.recipes.train import run_training

OWN = '''
def letters(prompt, answer, row):
    """Reward the share of letters: something that a tiny model can learn."""
    return sum(c.isascii() and c.isalpha() for c in answer) / max(1, len(answer))

def fails(prompt, answer, row):
    return 1 / (row["number"] - 3)
'''


@pytest.fixture
def grpo_run(small_run: Any, tiny_llama: Any) -> Any:
    """A run on 13 prompts, by default 2 epochs of 4 steps."""
    rows = [{"question": f"Name {n}.", "answer": str(n), "number": n} for n in range(13)]
    small_run.own = small_run.folder / "own.py"
    small_run.own.write_text(OWN, encoding="utf-8")
    path = small_run.folder / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    # Wide weights: the layers have a say, and not the embeddings alone.
    wide = tiny_llama("wide", initializer_range=0.3)
    small_run.values |= {
        "stage": "grpo",
        "model_name_or_path": str(wide),
        "train_file": str(path),
        "val_file": None,
        "reward_funcs": [f"{small_run.own}:letters"],
        "num_generations": 4,
        "max_completion_length": 6,
        "rollout_batch_size": 8,
    }
    return small_run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def train_lines(run: Any) -> list[dict[str, Any]]:
    times = {"tokens_per_second", "supervised_tokens_per_second", "seconds_per_step"}
    times |= {"elapsed_seconds", "memory_bytes", *(f"seconds_{part}" for part in PARTS)}
    return [
        {name: value for name, value in line.items() if name not in times}
        for line in run.metrics()
        if line["kind"] == "train"
    ]


@pytest.mark.parametrize(
    ("finetuning_type", "packing"), [("full", "padding_free"), ("lora", "false")]
)
def test_the_reward_rises(grpo_run: Any, finetuning_type: str, packing: str):
    run = grpo_run.train(
        *("--packing", packing, "--num_train_epochs", "5", "--learning_rate", "3e-2"),
        finetuning_type=finetuning_type,
        num_generations=8,
        val_size=3,
    )
    assert run.result.finished
    rewards = [line["reward"] for line in train_lines(run)]
    assert len(rewards) == 15
    early, late = sum(rewards[:3]) / 3, sum(rewards[-3:]) / 3
    assert late > early + 0.1
    first, last = run.result.first_eval, run.result.last_eval
    assert last["eval_reward"] > first["eval_reward"]
    assert last["eval_loss"] == -last["eval_reward"]
    (line, *_) = train_lines(run)
    assert line["rewards/letters/mean"] == line["reward"]
    assert 0 <= line["completions/clipped_ratio"] <= 1 < line["completions/mean_length"] <= 6
    samples = [json.loads(x) for x in (run.folder / "rollouts.jsonl").read_text().splitlines()]
    assert samples[0]["origin"].startswith(str(grpo_run.folder / "questions.jsonl"))
    assert samples[0]["rewards"].keys() == {"letters"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"num_iterations": 2, "beta": 0.1}, {"loss_type": "grpo", "packing": False}],
    ids=["plain", "clipped", "padded"],
)
def test_going_on_is_exact(grpo_run: Any, settings: dict[str, Any]):
    whole = grpo_run.train(output_dir=str(grpo_run.folder / "whole"), **settings)
    grpo_run.train(stop_after=3, **settings)
    rest = grpo_run.train("--resume_from_checkpoint", **settings)
    assert train_lines(whole) == train_lines(rest)
    one, other = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)
    texts = [(run.folder / "rollouts.jsonl").read_text() for run in (whole, rest)]
    assert texts[0] == texts[1]
    if "beta" in settings:
        kl = [line["kl"] for line in train_lines(whole)]
        assert kl[0] == pytest.approx(0, abs=1e-6), "a new adapter is its reference"
        assert kl[-1] > 1e-4


def test_frozen_layers_are_not_remembered(grpo_run: Any):
    run = grpo_run.train("--max_steps", "2", finetuning_type="freeze", freeze_trainable_layers=1)
    (notice,) = (one for one in run.screen.notices if one.setting == "freeze_cache")
    assert notice.used == "false"
    assert run.result.finished


class StopInside:
    """Asks to stop once the loop has something to save: after the first of two micro-batches."""

    def __init__(self) -> None:
        self.has_work = False

    @property
    def requested(self) -> bool:
        return self.has_work

    def take_checkpoint_request(self) -> bool:
        return False


@pytest.mark.parametrize("num_iterations", [1, 2])
def test_a_stop_in_the_middle_of_a_step_keeps_its_answers(
    grpo_run: Any, recorder: Any, num_iterations: int
):
    settings = {"num_iterations": num_iterations, "num_train_epochs": 1}
    whole = grpo_run.train(output_dir=str(grpo_run.folder / "whole"), **settings)
    command = ["luthier", "train"]
    stopped = run_training(grpo_run.config(**settings), command, recorder, StopInside())
    assert stopped.progress.step == 0
    (state,) = (stopped.folder / "checkpoints").glob("*/state.json")
    kept = json.loads(state.read_text(encoding="utf-8"))
    assert '"answer_ids"' in json.dumps(kept)
    rest = grpo_run.train("--resume_from_checkpoint", **settings)
    assert train_lines(whole) == train_lines(rest)
    one, other = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_own_reward_that_fails_ends_the_run_by_file_line_and_row(grpo_run: Any):
    message = r"own\.py:7: .*fails failed on the row .*questions\.jsonl:4: ZeroDivisionError"
    with pytest.raises(RunError, match=message):
        grpo_run.train(reward_funcs=[f"{grpo_run.own}:fails"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reward_funcs": None}, "nothing to say which answers are better"),
        ({"reward_funcs": ["math_anser"]}, "no reward function math_anser"),
        ({"beta": 0.1, "finetuning_type": "full"}, "beta: .*only an adapter leaves as it was"),
    ],
)
def test_what_is_refused_before_anything_is_loaded(
    grpo_run: Any, recorder: Any, settings: dict[str, Any], message: str
):
    with pytest.raises(SettingsError, match=message):
        run_training(grpo_run.config(**settings), ["luthier"], recorder, StopInside())
    with pytest.raises(SettingsError, match=message):
        inspect_run(grpo_run.config(**settings), recorder, 3)
    assert recorder.prepared is None
    assert not recorder.said


def test_prompts_can_be_inspected(grpo_run: Any, recorder: Any):
    found = inspect_run(grpo_run.config(), recorder, 3, with_losses=True)
    assert len(found.rows) == 3
    assert {shown.num_taught for shown in found.rows} == {0}
    assert not found.data.notices
    assert found.notices[-1].reason == "drawing the answers is left out of the time"
    assert found.estimate.num_steps == 8
    (shown, *_) = found.rows
    assert "Name" in "".join(piece.text for piece in shown.pieces)


def test_time_and_memory_are_estimated_from_the_answers_too(grpo_run: Any):
    config, lengths = with_answers(grpo_run.config("--num_iterations", "3"), [3, 5])
    assert lengths == [9] * 4 + [11] * 4
    assert config.batches.per_device_train_batch_size == 2 * 4
    assert config.training.num_train_epochs == 2 * 3


def test_other_rewards_are_another_run(grpo_run: Any):
    grpo_run.train(stop_after=1)
    with pytest.raises(RunError, match=r"temperature: 1\.0 -> 0\.5"):
        grpo_run.train("--resume_from_checkpoint", temperature=0.5)


def test_a_run_is_repeated(grpo_run: Any, recorder: Any):
    first = grpo_run.train("--max_steps", "3")

    class NeverStop(StopInside):
        @property
        def requested(self) -> bool:
            return False

    again = reproduce(open_run(first.folder), ["luthier", "reproduce"], recorder, NeverStop())
    assert verify(open_run(first.folder), again).identical


def test_the_settings_file_that_is_shipped():
    config = resolve_file(Path(__file__).parents[2] / "configs" / "grpo_gsm8k.yaml").config
    assert stage_of(config) is STAGES["grpo"]
    check_rollouts(config)
