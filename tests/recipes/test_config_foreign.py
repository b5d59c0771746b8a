"""Other trainers' names: each has an answer, and none of them is a setting."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from luthier.core.errors import SettingsError
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_foreign import FOREIGN, unknown_name
from luthier.recipes.config_layout import leaves, sections
from luthier.recipes.config_resolve import ResolvedConfig

Resolve = Callable[..., ResolvedConfig]

# The keys of LLaMA-Factory's examples/train_lora/llama3_lora_sft.yaml.
EXAMPLE = """\
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
dataloader_num_workers: 4
output_dir: saves/llama3-8b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null
"""


def test_no_foreign_name_is_a_setting_of_ours():
    assert not set(FOREIGN) & {*leaves(), *sections()}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_answer_names_only_settings_that_there_are(name: str):
    answer = FOREIGN[name]
    assert answer.endswith(".")
    named = re.findall(r"\b[a-z0-9]+_[a-z0-9_]+\b", answer)
    assert set(named) <= set(leaves())


def test_a_foreign_name_gets_its_answer_and_not_the_nearest_name(resolve_text: Resolve):
    message = r"run\.yaml:2: no setting is named do_train\n  Take it out; `luthier train` trains\.$"
    with pytest.raises(SettingsError, match=message):
        resolve_text("model_name_or_path: m\ndo_train: true\n")
    with pytest.raises(SettingsError, match=r"^--do-train: .*do-train\n  Take it out; `luthier"):
        read_flags(["--do-train"])


NOT_OURS = ("do_train", "plot_loss", "save_only_model", "ddp_timeout")


def test_llama_factorys_example_is_ours_but_for_four_lines(resolve_text: Resolve):
    lines = [line for line in EXAMPLE.splitlines() if line.split(":")[0] not in NOT_OURS]
    assert len(EXAMPLE.splitlines()) - len(lines) == len(NOT_OURS)
    config = resolve_text("\n".join(lines)).config
    assert config.data.dataset == "identity,alpaca_en_demo"
    assert config.tuning.finetuning_type == "lora"
    assert config.schedule.learning_rate == 1e-4


@pytest.mark.parametrize("name", NOT_OURS)
def test_each_of_the_four_is_to_be_taken_out(name: str, resolve_text: Resolve):
    line = next(line for line in EXAMPLE.splitlines() if line.startswith(name))
    message = rf"run\.yaml:2: no setting is named {name}\n  Take it out; "
    with pytest.raises(SettingsError, match=message):
        resolve_text(f"model_name_or_path: m\n{line}\n")


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("seeed", "Did you mean seed?"),
        ("LEARNING-RATE", "Did you mean learning_rate?"),
        ("wxyz", "`luthier config` lists all settings."),
    ],
)
def test_any_other_name_gets_the_nearest_one(name: str, mend: str):
    error = unknown_name(name, "a.yaml:1", leaves())
    assert error.problem == f"no setting is named {name}"
    assert error.where == "a.yaml:1"
    assert error.mend == mend
