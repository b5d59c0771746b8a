"""Our settings in TrainingArguments' words: same rate, same optimiser, same order of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments, get_scheduler

from luthier.engine.schedule import build_schedule
from luthier.recipes.job import build_job
from luthier.recipes.reference import trainer_arguments


@pytest.fixture
def arguments_of(small_run: Any, recorder: Any, tmp_path: Path):
    def arguments(*flags: str, num_steps: int = 20, **settings: Any) -> dict[str, Any]:
        config = small_run.config("--trainer", "transformers", *flags, **settings)
        return trainer_arguments(build_job(config, tmp_path, None, recorder), num_steps)

    return arguments


def test_every_argument_is_one_of_transformers(arguments_of: Any, tmp_path: Path):
    built = TrainingArguments(**arguments_of("--weight_decay", "0.1", "--max_grad_norm", "0.5"))
    assert built.max_steps == 20
    assert built.per_device_train_batch_size == 2
    assert built.gradient_accumulation_steps == 2
    assert built.learning_rate == 1e-2
    assert built.weight_decay == 0.1
    assert built.max_grad_norm == 0.5
    assert built.output_dir == str(tmp_path)
    assert built.save_strategy == "no"
    assert not built.remove_unused_columns


@pytest.mark.parametrize("shape", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [[], ["--warmup_steps", "3"], ["--warmup_ratio", "0.12"]])
def test_the_rate_is_ours_at_every_step(
    arguments_of: Any, small_run: Any, shape: str, warmup: list[str]
):
    flags = ["--lr_scheduler_type", shape, *warmup]
    arguments = arguments_of(*flags)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-2)
    scheduler = get_scheduler(
        arguments["lr_scheduler_type"], optimizer, arguments["warmup_steps"], 20
    )
    ours = build_schedule(small_run.config(*flags).schedule, 20)
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours(step), abs=1e-12)
        optimizer.step()
        scheduler.step()  # type: ignore[call-arg]


def test_the_optimisers(arguments_of: Any):
    adam = arguments_of("--adam_beta1", "0.8", "--adam_beta2", "0.95", "--adam_epsilon", "1e-6")
    assert adam["optim"] == "adamw_torch_fused"
    assert (adam["adam_beta1"], adam["adam_beta2"], adam["adam_epsilon"]) == (0.8, 0.95, 1e-6)
    adafactor = arguments_of("--optim", "adafactor")
    assert adafactor["optim"] == "adafactor"
    assert not any(name.startswith("adam_") for name in adafactor)


def test_the_precision(arguments_of: Any):
    assert (arguments_of()["bf16"], arguments_of()["fp16"]) == (False, False)
    assert arguments_of("--bf16", bf16=None)["bf16"] is True


@pytest.mark.parametrize(
    "flags", [["--group_by_length"], ["--optim", "adafactor"], ["--label_smoothing_factor", "0.1"]]
)
def test_a_run_by_either_trainer_has_the_same_losses(small_run: Any, flags: list[str]):
    common = [*flags, "--finetuning_type", "full", "--learning_rate", "1e-3"]
    ours = small_run.train(*common, output_dir=str(small_run.folder / "a"))
    theirs = small_run.train(*common, "--trainer", "transformers")
    assert ours.losses() == pytest.approx(theirs.losses(), abs=1e-5)
    assert len(ours.losses()) == 8
    assert ours.losses()[0] != ours.losses()[4]
