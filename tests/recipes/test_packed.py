"""Packed runs: the same steps as padded ones, and what becomes of models that can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM

from luthier.core.errors import ModelError, RunError
from luthier.recipes import packed
from luthier.recipes.config_resolve import resolve_file
from luthier.recipes.packed import settle_packing
from luthier.recipes.stages import ROWS, STAGES

NO_POSITIONS = "the model takes no position ids, so it can't count each document from 0"


@pytest.mark.parametrize("finetuning_type", ["lora", "full"])
def test_rows_without_padding_take_the_steps_of_padded_rows(small_run: Any, finetuning_type: str):
    runs = [
        small_run.train(
            *("--packing", packing, "--finetuning_type", finetuning_type),
            output_dir=str(small_run.folder / packing),
        )
        for packing in ("false", "padding_free")
    ]
    padded, flat = (run.losses() for run in runs)
    assert len(padded) == 8
    assert flat == pytest.approx(padded, rel=1e-5)
    ends = [run.result.last_eval["eval_loss"] for run in runs]
    assert ends[1] == pytest.approx(ends[0], rel=1e-5)


def test_filled_rows_train_every_conversation(small_run: Any):
    run = small_run.train("--packing", "true", "--cutoff_len", "64")
    assert run.result.finished
    assert run.result.progress.num_rows_seen == 26
    assert run.result.progress.epoch == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "padding_free"),
        (("--packing", "auto", "--flash_attn", "sdpa"), "padding_free"),
        (("--trainer", "transformers"), False),
        (("--group_by_length",), False),
        (("--flash_attn", "eager"), False),
        (("--packing", "false"), False),
        (("--packing", "true", "--flash_attn", "eager"), True),
        (("--packing", "padding_free", "--group_by_length"), "padding_free"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_is_settled(small_run: Any, flags: tuple[str, ...], expected: object):
    config = small_run.config(*flags)
    settled, notice = settle_packing(config)
    assert notice is None
    assert settled.batches.packing == expected
    batches = config.batches.model_copy(update={"packing": expected})
    assert settled == config.model_copy(update={"batches": batches})
    assert settle_packing(settled) == (settled, None)


@pytest.mark.parametrize("asked", ["auto", "padding_free", "true"])
def test_a_model_whose_rows_can_not_be_packed_gets_padded_ones(
    small_run: Any, monkeypatch: pytest.MonkeyPatch, asked: str
):
    monkeypatch.setattr(packed, "read_config", lambda _settings: BloomConfig())
    settled, notice = settle_packing(small_run.config("--packing", asked))
    assert settled.batches.packing is False
    assert str(notice) == f"packing: {asked} -> false ({NO_POSITIONS})"


def test_such_a_model_is_trained_by_the_default_settings(
    small_run: Any, tiny_tokenizer: Any, tmp_path: Path
):
    folder = str(tmp_path / "bloom")
    config = BloomConfig(vocab_size=len(tiny_tokenizer), hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    run = small_run.train(
        *("--finetuning_type", "full", "--max_steps", "2"), model_name_or_path=folder
    )
    assert run.result.finished
    said = [str(notice) for notice in run.screen.notices if notice.setting == "packing"]
    assert said == [f"packing: auto -> false ({NO_POSITIONS})"]


def test_a_checkpoint_knows_what_auto_was_and_run_yaml_what_was_asked(small_run: Any):
    whole = small_run.train("--packing", "padding_free", output_dir=str(small_run.folder / "whole"))
    part = small_run.train(stop_after=3)
    assert resolve_file(part.folder / "run.yaml").config.batches.packing == "auto"
    with pytest.raises(RunError, match="other settings: packing: padding_free -> False\n"):
        small_run.train("--packing", "false", "--resume_from_checkpoint")
    rest = small_run.train("--packing", "padding_free", "--resume_from_checkpoint")
    assert rest.screen.started_at == 3
    assert rest.losses() == whole.losses()
    again = small_run.train("--resume_from_checkpoint", output_dir=str(whole.folder))
    assert again.screen.started_at == 8


def test_a_model_that_mixes_documents_up_is_refused(
    small_run: Any, monkeypatch: pytest.MonkeyPatch
):
    layout = replace(ROWS, check=lambda _model: "packed documents see each other")
    monkeypatch.setitem(STAGES, "sft", replace(STAGES["sft"], layout=layout))
    with pytest.raises(ModelError, match=r"packed documents see each other(.|\n)*packing: false"):
        packed.refuse_unpackable(torch.nn.Linear(1, 1), small_run.config("--packing", "true"))
