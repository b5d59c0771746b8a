"""The names that LLaMA-Factory's users bring are ours, and the settings can't be changed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from luthier.models.settings import ModelSettings
from luthier.recipes.config_layout import leaves
from luthier.recipes.run_config import RunConfig, RunSettings

# Issue 2, item 2.
LECTURE = [
    "stage",
    "model_name_or_path",
    "finetuning_type",
    "template",
    "train_file",
    "val_file",
    "output_dir",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "num_train_epochs",
    "lora_target",
    "bnb_4bit_quant_type",
    "save_total_limit",
    "logging_steps",
    "flash_attn",
    "gradient_checkpointing",
    "resume_from_checkpoint",
    "quantization_bit",
    "deepspeed",
]
LLAMA_FACTORY = [
    "cutoff_len",
    "val_size",
    "dataset",
    "dataset_dir",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "max_samples",
    "train_on_prompt",
    "mask_history",
    "packing",
    "report_to",
    "eval_steps",
    "save_steps",
    "max_steps",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "seed",
    "bf16",
    "fp16",
    "optim",
]


@pytest.mark.parametrize("name", LECTURE + LLAMA_FACTORY)
def test_a_name_that_users_bring_is_a_setting(name: str):
    assert name in leaves()


def test_settings_are_frozen():
    config = RunConfig(model=ModelSettings(model_name_or_path="m"))
    with pytest.raises(ValidationError, match="frozen"):
        config.run.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        config.run = RunSettings()


def test_a_seed_is_one_that_all_libraries_take():
    assert RunSettings(seed=2**32 - 1).seed == 2**32 - 1
    with pytest.raises(ValidationError, match="less than 4294967296"):
        RunSettings(seed=2**32)


def test_settings_load_no_torch():
    code = (
        "import sys, luthier.recipes.config_resolve, luthier.recipes.config_flags\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
