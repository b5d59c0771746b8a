"""Preference stages from a settings file to a model folder: what is compared with what, and how."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from luthier.core.errors import DataError, RunError, SettingsError
from luthier.models.load import load_model
from luthier.models.settings import QuantizationSettings
from luthier.objectives.pair_log_probs import pair_log_probs
from luthier.recipes import pair_reference
from luthier.recipes.inspection import inspect_run
from luthier.recipes.job import build_job
from luthier.recipes.packed import settle_packing
from luthier.recipes.pair_reference import is_under_adapter, with_reference

RANKING = ("dpo", "orpo", "simpo", "cpo")
COLOURS = ("red", "green", "blue", "black", "white")


def pairs(num_rows: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Name {number} colours, {COLOURS[number % 5]} first.",
            "chosen": f"{COLOURS[number % 5]} and {COLOURS[number % 4]}.",
            "rejected": "I do not know. " * (1 + number % 3),
            **more,
        }
        for number in range(num_rows)
    ]


def verdicts(num_rows: int) -> list[dict[str, Any]]:
    return [
        {
            "prompt": row["instruction"],
            "completion": row["chosen"] if number % 2 else row["rejected"],
            "label": bool(number % 2),
        }
        for number, row in enumerate(pairs(num_rows))
    ]


@pytest.fixture
def preference_run(small_run: Any, write_file: Any) -> Any:
    """A run on 12 pairs, or answers with a verdict, 4 of them for validation."""
    files = {
        kind: str(write_file(f"{kind}.json", json.dumps(rows)))
        for kind, rows in (("pairs", pairs(12)), ("verdicts", verdicts(12)))
    }
    small_run.values |= {
        "val_file": None,
        "val_size": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "template": "lecture",
        "cutoff_len": 160,
    }

    def values(stage: str) -> dict[str, Any]:
        kind = "verdicts" if stage == "kto" else "pairs"
        return {"stage": stage, "train_file": files[kind]}

    small_run.of = values
    return small_run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def reference_files(run: Any) -> list[Path]:
    return sorted((run.folder / "prepared" / "references").glob("*.safetensors"))


@pytest.mark.parametrize("packing", ["padding_free", "true", "false"])
@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("stage", [*RANKING, "kto"])
def test_answers_are_learned_to_be_told_apart(
    preference_run: Any, stage: str, finetuning_type: str, packing: str
):
    from transformers import AutoModelForCausalLM

    run = preference_run.train(
        *("--packing", packing, "--finetuning_type", finetuning_type, "--num_train_epochs", "4"),
        **preference_run.of(stage),
    )
    first, last = run.result.first_eval, run.result.last_eval
    assert run.result.finished
    assert last["eval_loss"] < first["eval_loss"]
    assert "eval_perplexity" not in last
    margins = [
        found["eval_rewards/chosen"] - found["eval_rewards/rejected"] for found in (first, last)
    ]
    assert margins[1] > margins[0] + 1e-3
    if stage in ("dpo", "kto"):
        # At the start the model is its own reference.
        assert margins[0] == pytest.approx(0, abs=1e-5)
        assert len(reference_files(preference_run)) == 2
    else:
        assert not reference_files(preference_run)
    if finetuning_type == "full":
        AutoModelForCausalLM.from_pretrained(str(run.folder))


@pytest.mark.parametrize("stage", ["dpo", "simpo", "kto"])
def test_packed_and_padded_answers_take_the_same_steps(preference_run: Any, stage: str):
    runs = [
        preference_run.train(
            *("--packing", packing),
            output_dir=str(preference_run.folder / packing),
            **preference_run.of(stage),
        )
        for packing in ("false", "padding_free")
    ]
    padded, flat = (run.losses() for run in runs)
    assert len(padded) == 4
    assert flat == pytest.approx(padded, rel=1e-5)


def test_accumulated_steps_are_those_of_one_batch(preference_run: Any):
    runs = [
        preference_run.train(
            output_dir=str(preference_run.folder / f"by-{size}"),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            **preference_run.of("dpo"),
        )
        for size in (1, 4)
    ]
    one, four = (run.losses() for run in runs)
    assert one == pytest.approx(four, rel=1e-5)


@pytest.mark.parametrize(
    ("finetuning_type", "more"),
    [("lora", {}), ("full", {}), ("lora", {"lora_init": "pissa"}), ("freeze", {})],
)
def test_the_reference_is_the_model_before_its_first_step(
    preference_run: Any, recorder: Any, finetuning_type: str, more: dict[str, Any]
):
    config = preference_run.config(
        **preference_run.of("dpo"), finetuning_type=finetuning_type, **more
    )
    job = build_job(config, preference_run.folder / "out", None, recorder)
    found: Any = with_reference(job, None, recorder.working, lambda: False).data.prepared.train
    base = load_model(
        config.model,
        QuantizationSettings(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        packed=True,
    ).model
    base.eval()
    for row in found:
        with torch.no_grad():
            expected = pair_log_probs(None, base, job.collate()([row]))
        for name in ("chosen", "rejected", "chosen_shared", "rejected_shared"):
            assert row[f"reference_{name}"] == pytest.approx(
                float(getattr(expected, name)), abs=2e-4
            )


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
@pytest.mark.parametrize("keeps_reference", [True, False])
def test_going_on_is_exact_even_where_the_reference_is_gone(
    preference_run: Any, finetuning_type: str, keeps_reference: bool
):
    more = preference_run.of("dpo") | {"finetuning_type": finetuning_type, "save_steps": 1}
    whole = preference_run.train(**more, output_dir=str(preference_run.folder / "whole"))
    preference_run.train(stop_after=2, **more)
    if not keeps_reference:
        shutil.rmtree(preference_run.folder / "prepared")
    rest = preference_run.train("--resume_from_checkpoint", **more)
    assert len(reference_files(preference_run)) == 2
    assert rest.losses() == whole.losses()
    one, other = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_new_tokens_and_averaged_weights_are_gone_on_with(
    preference_run: Any, finetuning_type: str
):
    """The reference has rows for the new tokens, too: the mean of the old ones."""
    more: dict[str, Any] = {
        **preference_run.of("dpo"),
        "finetuning_type": finetuning_type,
        "add_tokens": ["colours", "white"],
        "optim": "schedule_free_adamw",
        "lr_scheduler_type": "constant",
        "save_steps": 1,
    }
    whole = preference_run.train(**more, output_dir=str(preference_run.folder / "whole"))
    preference_run.train(stop_after=2, **more)
    shutil.rmtree(preference_run.folder / "prepared")
    rest = preference_run.train("--resume_from_checkpoint", **more)
    assert rest.losses() == whole.losses()
    one, other = weights(whole.folder), weights(rest.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_compared_is_part_of_a_checkpoint(preference_run: Any):
    preference_run.train(stop_after=2, **preference_run.of("dpo"))
    with pytest.raises(RunError, match=r"pref_beta: 0\.1 -> 0\.3"):
        preference_run.train("--resume_from_checkpoint", pref_beta=0.3, **preference_run.of("dpo"))
    with pytest.raises(RunError, match=r"stage: dpo -> simpo"):
        preference_run.train("--resume_from_checkpoint", **preference_run.of("simpo"))


def test_the_reference_is_computed_once(preference_run: Any, monkeypatch: pytest.MonkeyPatch):
    preference_run.train(**preference_run.of("dpo"))

    def never(*_: Any) -> Any:
        raise AssertionError("the numbers are there")

    monkeypatch.setattr(pair_reference, "_log_probs", never)
    preference_run.train("--overwrite_output_dir", pref_beta=0.5, **preference_run.of("dpo"))


def test_an_adapter_that_is_trained_on_belongs_to_the_reference(preference_run: Any):
    first = preference_run.train("--stage", "simpo", **preference_run.of("simpo"))
    adapter = {"adapter_name_or_path": str(first.folder)}
    config = preference_run.config(**preference_run.of("dpo"), **adapter)
    assert not is_under_adapter(config)
    assert is_under_adapter(
        preference_run.config(**preference_run.of("dpo"), **adapter, create_new_adapter=True)
    )
    out = {"output_dir": str(preference_run.folder / "second")}
    second = preference_run.train(**preference_run.of("dpo"), **adapter, **out)
    # Its own reference: nothing is preferred at the start, whatever the adapter has learned.
    assert second.result.first_eval["eval_rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_a_stop_before_the_first_step(
    preference_run: Any, monkeypatch: pytest.MonkeyPatch, recorder: Any
):
    config = preference_run.config(**preference_run.of("dpo"))
    job = build_job(config, preference_run.folder / "out", None, recorder)
    from luthier.contracts.training import StopAskedError

    with pytest.raises(StopAskedError):
        with_reference(job, None, recorder.working, lambda: True)

    def stopped(*_: Any) -> Any:
        raise StopAskedError

    monkeypatch.setattr(pair_reference, "_log_probs", stopped)
    run = preference_run.train(**preference_run.of("dpo"))
    assert not run.result.finished
    assert not run.result.can_go_on
    assert not reference_files(preference_run)


def test_pairs_weigh_as_their_rows_say(preference_run: Any, write_file: Any):
    rows = pairs(12)
    for number, row in enumerate(rows):
        row["task"] = "ab"[number % 2]
    path = write_file("tasks.json", json.dumps(rows))
    values = preference_run.of("dpo") | {"train_file": str(path), "task_column": "task"}
    run = preference_run.train(**values, task_weights={"a": 0.25})
    assert set(run.screen.prepared.train["weight"]) == {0.25, 1.0}
    assert run.losses()[0] == pytest.approx(0.6931, abs=1e-3)


def test_a_model_that_can_not_share_prompts_is_padded(preference_run: Any):
    config = preference_run.config(**preference_run.of("dpo"), flash_attn="fa2")
    settled, notice = settle_packing(config)
    assert settled.batches.packing is False
    assert notice is None or "FlashAttention 2 knows no prompts that answers share" in str(notice)
    asked = preference_run.config(
        "--packing", "padding_free", **preference_run.of("dpo"), flash_attn="fa2"
    )
    settled, notice = settle_packing(asked)
    assert settled.batches.packing is False
    assert "FlashAttention 2 knows no prompts that answers share" in str(notice)


def test_what_an_inspection_shows(preference_run: Any, recorder: Any):
    found = inspect_run(
        preference_run.config(**preference_run.of("dpo")), recorder, 2, with_losses=True
    )
    assert [row.judgement for row in found.rows] == ["better", "worse"] * 2
    better, worse = found.rows[:2]
    assert better.pieces[0].text == worse.pieces[0].text
    assert "I do not know." in "".join(piece.text for piece in worse.pieces if piece.taught)
    assert all(piece.loss is not None for piece in better.pieces if piece.taught)
    found = inspect_run(preference_run.config(**preference_run.of("kto")), recorder, 8)
    assert {row.judgement for row in found.rows} == {"wanted", "unwanted"}


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_rows_of_another_kind(preference_run: Any, stage: str):
    with pytest.raises(DataError):
        preference_run.train(**(preference_run.of("dpo") | {"stage": stage}))


def test_kto_asks_for_more_than_one_row(preference_run: Any):
    with pytest.raises(SettingsError, match="kto estimates what it compares with"):
        preference_run.config(**preference_run.of("kto"), per_device_train_batch_size=1)
    config = preference_run.config(**preference_run.of("kto"), per_device_train_batch_size=None)
    assert config.batches.per_device_train_batch_size == 8


def test_frozen_layers_are_not_remembered(preference_run: Any):
    run = preference_run.train(finetuning_type="freeze", **preference_run.of("dpo"))
    assert "answers that are compared are not rows of their own" in str(run.screen.notices)
