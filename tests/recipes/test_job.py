"""The parts of a run: what is trained, in which type, from which weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from luthier.core.errors import RunError
from luthier.recipes.job import build_evaluator, build_job, model_taker, model_writer


@pytest.fixture
def build(small_run: Any, recorder: Any):
    def build(*flags: str, checkpoint: Path | None = None, **settings: Any) -> Any:
        return build_job(small_run.config(*flags, **settings), Path("out"), checkpoint, recorder)

    return build


def test_lora_trains_the_adapter_alone_in_float32(build: Any, recorder: Any):
    job = build("--lora_rank", "4", "--bf16", bf16=None)
    trained = {name: p for name, p in job.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    assert {p.dtype for p in trained.values()} == {torch.float32}
    frozen = {p.dtype for p in job.model.parameters() if not p.requires_grad}
    assert frozen == {torch.bfloat16}
    assert job.precision.name == "bf16"
    assert recorder.parameters == job.parameters
    assert job.parameters.trained == sum(p.numel() for p in trained.values())


@pytest.mark.parametrize("tuning", ["full", "freeze"])
def test_what_is_trained_whole_is_kept_in_float32(build: Any, tuning: str):
    job = build("--finetuning_type", tuning, "--bf16", bf16=None)
    assert {p.dtype for p in job.model.parameters()} == {torch.float32}
    is_full = job.parameters.trained == job.parameters.total
    assert is_full == (tuning == "full")


def test_the_first_adapter_depends_on_the_seed_alone(build: Any):
    def first(*flags: str) -> torch.Tensor:
        torch.manual_seed(torch.seed())
        model = build("--lora_rank", "2", *flags).model
        return next(p for name, p in model.named_parameters() if "lora_A" in name)

    assert torch.equal(first(), first())
    assert not torch.equal(first(), first("--seed", "1"))


def test_gradient_checkpointing_is_switched_on_and_said_nowhere(build: Any, recorder: Any):
    assert build("--gradient_checkpointing").model.is_gradient_checkpointing
    assert not build().model.is_gradient_checkpointing
    assert recorder.notices == []


def test_no_validation_rows_no_evaluator(build: Any):
    assert build_evaluator(build(val_file=None)) is None


def test_the_evaluator_measures_without_smoothing(build: Any):
    plain, smoothed = build(), build("--label_smoothing_factor", "0.5")
    measured = []
    for job in (plain, smoothed):
        evaluator = build_evaluator(job)
        assert evaluator is not None
        measured.append(evaluator(job.model)["eval_loss"])
    assert measured[0] == measured[1]


def test_what_the_settings_add_in_training_alone(build: Any):
    job = build("--use_dft_loss", "--neftune_noise_alpha", "5")
    assert job.training_objective().dft
    assert not job.objective().dft
    assert build("--label_smoothing_factor", "0.1").training_objective().label_smoothing == 0.1
    ids = torch.arange(8)[None]
    plain = build().model.train()
    with torch.no_grad():
        assert torch.equal(plain(ids).logits, plain(ids).logits)
        assert not torch.equal(job.model.train()(ids).logits, job.model(ids).logits)


def test_the_writer_saves_the_model_as_it_stands(build: Any, tmp_path: Path):
    job = build("--finetuning_type", "full")
    with torch.no_grad():
        job.model.lm_head.weight.fill_(0.5)
    model_writer(job)(tmp_path / "written")
    saved = load_file(tmp_path / "written" / "model.safetensors")
    assert (saved["lm_head.weight"] == 0.5).all()


@pytest.mark.parametrize("as_copy", [False, True])
def test_the_model_is_taken_as_it_stands_or_as_a_copy(build: Any, tmp_path: Path, as_copy: bool):
    job = build("--finetuning_type", "full")
    with torch.no_grad():
        job.model.lm_head.weight.fill_(0.5)
        taken = model_taker(job)(as_copy)
        job.model.lm_head.weight.fill_(0.25)
    taken.write(tmp_path / "written")
    saved = load_file(tmp_path / "written" / "model.safetensors")
    assert (saved["lm_head.weight"] == (0.5 if as_copy else 0.25)).all()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_checkpoint_gives_the_weights(build: Any, small_run: Any, tuning: str):
    trained = small_run.train("--finetuning_type", tuning, stop_after=2)
    checkpoint = trained.folder / "checkpoints" / "step-000002"
    name = "adapter_model" if tuning == "lora" else "model"
    saved = load_file(checkpoint / "model" / f"{name}.safetensors")

    def trained_parameters(job: Any) -> dict[str, torch.Tensor]:
        named = job.model.named_parameters()
        return {n.replace(".default", ""): p.detach() for n, p in named if p.requires_grad}

    going_on = trained_parameters(build("--finetuning_type", tuning, checkpoint=checkpoint))
    fresh = trained_parameters(build("--finetuning_type", tuning))
    assert going_on.keys() == fresh.keys() == saved.keys()
    assert all(torch.equal(going_on[n], saved[n]) for n in saved)
    assert not all(torch.equal(fresh[n], saved[n]) for n in saved)


def test_a_checkpoint_of_another_run_is_refused_before_the_model_is_loaded(
    build: Any, small_run: Any, recorder: Any
):
    trained = small_run.train(stop_after=1)
    checkpoint = trained.folder / "checkpoints" / "step-000001"
    with pytest.raises(RunError, match=r"other settings: learning_rate: 0\.01 -> 0\.5"):
        build("--learning_rate", "0.5", checkpoint=checkpoint)
    assert not any(line.startswith("Loading") for line in recorder.said)
