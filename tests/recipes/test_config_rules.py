"""Each rule over sections: what breaks it, its message, its place, and its clean twin."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from luthier.core.errors import SettingsError
from luthier.corpus.steps.registry import STEPS
from luthier.recipes.config_layout import leaves
from luthier.recipes.config_resolve import ResolvedConfig, resolve_file
from luthier.recipes.config_rules import RULES, STEP_RULES
from luthier.recipes.run_config import STEP_SETTINGS
from luthier.recipes.run_folder import write_run_yaml

Resolve = Callable[..., ResolvedConfig]

FULL = "finetuning_type: full"
FREEZE = "finetuning_type: freeze"
BY_TRANSFORMERS = "trainer: transformers"
AUTO = "per_device_train_batch_size: auto"
ADAPTER = "adapter_name_or_path: out"
NO_ROWS = "is set, and there are no validation rows"
QUANTISED = "is for LoRA on a frozen base"
NO_CHECKPOINTS = "is set, and trainer: transformers writes no checkpoints"
OWN_LOOP = "is set, and only luthier's own loop looks"
PT, DPO, RM = "stage: pt", "stage: dpo", "stage: rm"
GRPO = "stage: grpo"
TWICE = f"{GRPO}\nnum_iterations: 2"
DOES_NOT_RANK = "is set, and this stage does not rank answers"
OF_DOCUMENTS = "and stage: pt learns from documents"
OF_PROMPTS = "is set, and stage: grpo trains on prompts alone"
GRPO_ONLY = "is set, and only stage: grpo looks"
ONE_RATE = "is set, and trainer: transformers has one learning rate"
NO_TRACKER = "is set, and report_to names no tracker"
HAS_ITS_OWN = "is set, and the adapter of adapter_name_or_path has its own"

# (the setting, the line that breaks the rule, other lines, the problem, what makes it right)
CASES = [
    ("eval_steps", "eval_steps: 3", "", NO_ROWS, "val_size: 0.1"),
    ("eval_strategy", "eval_strategy: epoch", "", NO_ROWS, "val_file: v.json"),
    ("per_device_eval_batch_size", "per_device_eval_batch_size: 2", "", NO_ROWS, "val_size: 9"),
    ("stratify_by", "stratify_by: lang", "", "is set, and no validation rows are cut",
     "val_size: 3"),
    ("dataset_dir", "dataset_dir: d", "train_file: a.json", "is set without dataset", "dataset: a"),
    ("task_column", "task_column: t", "", "is set without task_weights", "task_weights: {a: 2}"),
    ("min_answer_share", "min_answer_share: 0.2", "on_long_row: drop", "and on_long_row: drop cuts",
     "on_long_row: cut"),
    ("quantization_bit", "quantization_bit: 4", FULL, QUANTISED, "finetuning_type: lora"),
    ("bnb_4bit_quant_type", "bnb_4bit_quant_type: nf4", FREEZE, QUANTISED, "finetuning_type: lora"),
    ("bnb_4bit_compute_dtype", "bnb_4bit_compute_dtype: auto", FULL, QUANTISED,
     "finetuning_type: lora"),
    ("bnb_4bit_use_double_quant", "bnb_4bit_use_double_quant: true", FULL, QUANTISED,
     "finetuning_type: lora"),
    ("adapter_name_or_path", ADAPTER, FULL, "is a LoRA adapter, and finetuning_type is not lora",
     "finetuning_type: lora"),
    ("save_total_limit", "save_total_limit: 2", "save_strategy: no", "and save_strategy: no writes",
     "save_strategy: epoch"),
    ("eval_strategy", "eval_strategy: no", "val_size: 0.1", "is no, and validation rows are set",
     "val_size: 0"),
    ("resume_from_checkpoint", "resume_from_checkpoint: true", BY_TRANSFORMERS, "no exact resume",
     "trainer: luthier"),
    ("allow_change", "allow_change: seed", "", "is set, and the run goes on from no checkpoint",
     "resume_from_checkpoint: true"),
    ("early_stopping_patience", "early_stopping_patience: 2", "", NO_ROWS, "val_size: 0.1"),
    ("max_nonfinite_steps", "max_nonfinite_steps: 2", BY_TRANSFORMERS, OWN_LOOP,
     "trainer: luthier"),
    ("max_rollbacks", "max_rollbacks: 2", BY_TRANSFORMERS, OWN_LOOP, "trainer: luthier"),
    ("loss_spike_threshold", "loss_spike_threshold: 2", BY_TRANSFORMERS, OWN_LOOP,
     "trainer: luthier"),
    ("on_loss_spike", "on_loss_spike: rollback", BY_TRANSFORMERS, OWN_LOOP, "trainer: luthier"),
    ("early_stopping_patience", "early_stopping_patience: 2", f"{BY_TRANSFORMERS}\nval_size: 0.1",
     OWN_LOOP, "val_size: 0.1"),
    ("sample_prompts", "sample_prompts: [Hi]", BY_TRANSFORMERS, "is set, and only luthier's own",
     "trainer: luthier"),
    ("sample_prompts", "sample_prompts: [Hi]", "stage: rm", "is set, and a reward model", ""),
    ("sample_steps", "sample_steps: 3", "", "there are no sample_prompts", "sample_prompts: [Hi]"),
    ("sample_max_new_tokens", "sample_max_new_tokens: 3", "", "there are no sample_prompts",
     "sample_prompts: [Hi]"),
    ("callbacks", "callbacks: [a.py:B]", BY_TRANSFORMERS, "and only luthier's own loop has it",
     "trainer: luthier"),
    ("log_histograms", "log_histograms: 9", f"{BY_TRANSFORMERS}\nreport_to: wandb",
     "and only luthier's own loop has it", "report_to: wandb"),
    ("log_histograms", "log_histograms: 9", "report_to: mlflow", "no tracker that draws histograms",
     "report_to: [mlflow, trackio]"),
    ("project", "project: p", "", NO_TRACKER, "report_to: wandb"),
    ("run_name", "run_name: r", "", NO_TRACKER, "report_to: tensorboard"),
    ("logging_dir", "logging_dir: d", "", NO_TRACKER, "report_to: swanlab"),
    ("save_in_background", "save_in_background: true", BY_TRANSFORMERS, NO_CHECKPOINTS,
     "trainer: luthier"),
    ("on_full_disk", "on_full_disk: pause", BY_TRANSFORMERS, NO_CHECKPOINTS, "trainer: luthier"),
    ("save_steps", "save_steps: 3", BY_TRANSFORMERS, NO_CHECKPOINTS, "trainer: luthier"),
    ("save_total_limit", "save_total_limit: 3", BY_TRANSFORMERS, NO_CHECKPOINTS,
     "trainer: luthier"),
    ("save_strategy", "save_strategy: epoch", BY_TRANSFORMERS, NO_CHECKPOINTS, "trainer: luthier"),
    ("lora_target", "lora_target: q_proj", ADAPTER, HAS_ITS_OWN, ""),
    ("lora_rank", "lora_rank: 4", ADAPTER, HAS_ITS_OWN, ""),
    ("lora_alpha", "lora_alpha: 4", ADAPTER, HAS_ITS_OWN, ""),
    ("lora_dropout", "lora_dropout: 0.1", ADAPTER, HAS_ITS_OWN, ""),
    ("lora_init", "lora_init: pissa", ADAPTER, HAS_ITS_OWN, f"{ADAPTER}\ncreate_new_adapter: true"),
    ("create_new_adapter", "create_new_adapter: true", "", "is set without adapter_name_or_path",
     ADAPTER),
    ("adapter_name_or_path", "adapter_name_or_path: a,b", "quantization_bit: 4",
     "is merged into the base, and a quantised base", ""),
    ("lora_init", "lora_init: olora", "quantization_bit: 8", "takes its part out of the base", ""),
    ("lora_init", "lora_init: eva", "stage: dpo", "is eva, which looks at rows of one text", ""),
    ("use_rslora", "use_rslora: true", ADAPTER, HAS_ITS_OWN, ""),
    ("use_dora", "use_dora: true", ADAPTER, HAS_ITS_OWN, ""),
    ("additional_target", "additional_target: lm_head", ADAPTER, HAS_ITS_OWN, ""),
    ("optim", "optim: muon", "", "is muon, .* and lora trains two factors", FULL),
    ("optim", "optim: schedule_free_adamw", "lr_scheduler_type: cosine",
     "average of the weights takes the place of a falling rate", "lr_scheduler_type: constant"),
    ("optim", "optim: lion", BY_TRANSFORMERS, "is set, and trainer: transformers has adamw_torch",
     "trainer: luthier"),
    ("loraplus_lr_ratio", "loraplus_lr_ratio: 16", BY_TRANSFORMERS, ONE_RATE, "trainer: luthier"),
    ("layerwise_lr_decay", "layerwise_lr_decay: 0.9", f"{BY_TRANSFORMERS}\n{FULL}", ONE_RATE, FULL),
    ("packing_window", "packing_window: 64", "", "and only packing: true looks", "packing: true"),
    ("group_by_length", "group_by_length: true", "packing: true", "packing: true fills every row",
     "packing: padding_free"),
    ("packing", "packing: padding_free", BY_TRANSFORMERS, "trains on padded rows",
     "trainer: luthier"),
    ("split_likeness", "split_likeness: 0.5", "val_size: 0.1", "is set, and no corpus is split",
     "steps: [near]\nval_size: 0.1"),
    ("per_device_train_batch_size", AUTO, BY_TRANSFORMERS, "trainer: transformers takes a number",
     "trainer: luthier"),
    ("gradient_accumulation_steps", "gradient_accumulation_steps: 2", AUTO, "and per_.*: auto ch",
     "per_device_train_batch_size: 4"),
    ("template", "template: chatml", PT, OF_DOCUMENTS, "stage: sft"),
    ("default_system", "default_system: Be short.", PT, OF_DOCUMENTS, ""),
    ("train_on_prompt", "train_on_prompt: true", PT, OF_DOCUMENTS, ""),
    ("mask_history", "mask_history: true", PT, OF_DOCUMENTS, ""),
    ("on_long_row", "on_long_row: drop", PT, OF_DOCUMENTS, ""),
    ("min_answer_share", "min_answer_share: 0.2", PT, OF_DOCUMENTS, ""),
    ("min_answer_chars", "min_answer_chars: 6", PT, OF_DOCUMENTS, ""),
    ("pref_loss", "pref_loss: hinge", "stage: orpo", "is set, and this stage is named after its l",
     "stage: dpo"),
    ("pref_loss", "pref_loss: orpo", DPO, "is set, and is a stage of its own", "stage: orpo"),
    ("pref_loss", "pref_loss: ipo", "stage: kto", DOES_NOT_RANK, DPO),
    ("pref_beta", "pref_beta: 0.2", "", "is set, and this stage judges no an", "stage: kto"),
    ("pref_ftx", "pref_ftx: 0.2", "", DOES_NOT_RANK, DPO),
    ("dpo_label_smoothing", "dpo_label_smoothing: 0.1", "stage: kto", DOES_NOT_RANK, DPO),
    ("ld_alpha", "ld_alpha: 0.5", "", DOES_NOT_RANK, DPO),
    ("reference_free", "reference_free: true", "", DOES_NOT_RANK, DPO),
    *(
        (name, f"{name}: {value}", RM, "is set, and stage: rm compares rewards", DPO)
        for name, value in (
            ("pref_loss", "hinge"), ("pref_beta", 0.2), ("pref_ftx", 0.2),
            ("reference_free", "true"), ("ld_alpha", 0.5),
        )
    ),
    ("dpo_label_smoothing", "dpo_label_smoothing: 0.1", RM, "is set, and stage: rm compares", DPO),
    ("center_rewards_coefficient", "center_rewards_coefficient: 0.01", DPO,
     "is set, and only stage: rm looks", RM),
    ("kto_chosen_weight", "kto_chosen_weight: 2", DPO, "only stage: kto looks", "stage: kto"),
    ("kto_rejected_weight", "kto_rejected_weight: 2", "", "only stage: kto looks", "stage: kto"),
    ("train_on_prompt", "train_on_prompt: true", DPO, "the prompt has no part", "stage: sft"),
    ("mask_history", "mask_history: true", DPO, "the prompt has no part", "stage: sft"),
    ("label_smoothing_factor", "label_smoothing_factor: 0.1", DPO, "it is the loss of tokens", ""),
    ("use_dft_loss", "use_dft_loss: true", "stage: cpo", "it is the loss of tokens", ""),
    ("trainer", BY_TRANSFORMERS, DPO, "is transformers, which has the stages", "stage: pt"),
    ("per_device_train_batch_size", "per_device_train_batch_size: 1", "stage: kto",
     "and kto estimates what it compares with", DPO),
    ("epsilon", "epsilon: 0.1", "", GRPO_ONLY, TWICE),
    ("epsilon_high", "epsilon_high: 0.3", "", GRPO_ONLY, TWICE),
    ("beta", "beta: 0.1", DPO, GRPO_ONLY, GRPO),
    ("loss_type", "loss_type: grpo", "", GRPO_ONLY, GRPO),
    ("reward_funcs", "reward_funcs: [length]", "", GRPO_ONLY, GRPO),
    ("reward_max_chars", "reward_max_chars: 9", "", GRPO_ONLY, f"{GRPO}\nreward_funcs: length"),
    ("num_generations", "num_generations: 4", DPO, GRPO_ONLY, GRPO),
    ("max_completion_length", "max_completion_length: 4", "", GRPO_ONLY, GRPO),
    ("temperature", "temperature: 0.5", "", GRPO_ONLY, GRPO),
    ("top_p", "top_p: 0.5", "", GRPO_ONLY, GRPO),
    ("rollout_batch_size", "rollout_batch_size: 2", "", GRPO_ONLY, GRPO),
    ("num_iterations", "num_iterations: 2", "", GRPO_ONLY, GRPO),
    ("scale_rewards", "scale_rewards: false", "", GRPO_ONLY, GRPO),
    ("epsilon", "epsilon: 0.1", GRPO, "with num_iterations: 1 the ratio", TWICE),
    ("epsilon_high", "epsilon_high: 0.3", GRPO, "with num_iterations: 1 the ratio", TWICE),
    ("reward_max_chars", "reward_max_chars: 9", GRPO, "the reward length is not among",
     f"{GRPO}\nreward_funcs: length"),
    ("on_long_row", "on_long_row: drop", GRPO, OF_PROMPTS, DPO),
    ("min_answer_share", "min_answer_share: 0.2", GRPO, OF_PROMPTS, DPO),
    ("min_answer_chars", "min_answer_chars: 6", GRPO, OF_PROMPTS, DPO),
    ("task_column", "task_column: t", f"{GRPO}\ntask_weights: {{a: 2}}", OF_PROMPTS,
     f"{DPO}\ntask_weights: {{a: 2}}"),
    ("neftune_noise_alpha", "neftune_noise_alpha: 5", GRPO, OF_PROMPTS, DPO),
    ("packing", "packing: true", GRPO, "before the model has answered", DPO),
    ("per_device_train_batch_size", AUTO, GRPO, "rows that the model has not written", DPO),
    ("train_batch_size", "train_batch_size: 32", "", "and only per_device_train_batch_size: auto",
     AUTO),
    ("resize_vocab", "resize_vocab: true", "", "is set, and there are no new tokens",
     "add_tokens: spruce"),
    ("resize_vocab", "resize_vocab: false", "new_special_tokens: <a>,<b>",
     "is false, and new tokens need rows", ""),
]  # fmt: skip

STEP_CASES = {
    "repair": "repair_encoding: false",
    "schema": "schema_action: report",
    "quality": "quality_max_symbols: 0.5",
    "language": "languages: [zh, en]",
    "pii": "pii_action: drop",
    "exact": "exact_source_priority: [own]",
    "near": "near_threshold: 0.7",
    "semantic": "semantic_scope: prompt",
    "decontaminate": "decontaminate_files: [test.jsonl]",
    "sample": "sample_size: 100",
}


@pytest.mark.parametrize(("step", "line"), STEP_CASES.items())
def test_a_setting_of_a_step_needs_the_step(step: str, line: str, resolve_text: Resolve):
    name = line.partition(":")[0]
    problem = rf"run\.yaml:2: {name} is set, and the step {step} is not among(.|\n)*Add {step}"
    with pytest.raises(SettingsError, match=problem):
        resolve_text(f"model_name_or_path: m\n{line}\nsteps: [mine]")
    resolve_text(f"model_name_or_path: m\n{line}\nsteps: [mine, {step}]")


def test_every_setting_of_a_step_has_its_rule():
    assert STEP_CASES.keys() == STEP_SETTINGS.keys() == STEPS.keys()
    names = [name for model in STEP_SETTINGS.values() for name in model.model_fields]
    assert [rule.name for rule in STEP_RULES] == names
    assert all(STEPS[name].settings is model for name, model in STEP_SETTINGS.items())


@pytest.mark.parametrize(("name", "line", "others", "problem", "right"), CASES)
def test_rule(name: str, line: str, others: str, problem: str, right: str, resolve_text: Resolve):
    head = f"model_name_or_path: m\n{line}\n"
    with pytest.raises(SettingsError, match=rf"run\.yaml:2: {name} .*{problem}.*\n  \S"):
        resolve_text(head + others)
    resolve_text(head + right)


def test_every_rule_has_a_case():
    for rule in RULES[len(STEP_RULES) :]:
        assert any(
            name == rule.name and re.search(problem, f"{rule.name} {rule.problem}")
            for name, _, _, problem, _ in CASES
        ), rule
    assert len(CASES) + len(STEP_RULES) == len(RULES)


def test_every_rule_names_a_setting():
    assert all(rule.name in leaves() for rule in RULES)


def test_a_default_that_is_spelled_out_breaks_no_rule(resolve_text: Resolve):
    text = "eval_strategy: auto\nstratify_by: length\ndataset_dir: data\nsave_total_limit: null\n"
    text += "mask_history: false\nper_device_eval_batch_size: 8\nlora_rank: 8\n"
    resolved = resolve_text(f"model_name_or_path: m\nadapter_name_or_path: out\n{text}")
    assert resolved.config.data.stratify_by == "length"
    assert "stratify_by" in resolved.where


@pytest.mark.parametrize(
    "text",
    [
        "",
        FULL,
        f"{FREEZE}\nval_size: 0.5",
        "optim: adafactor",
        "optim: lion",
        "lora_init: pissa_niter_4",
        "adapter_name_or_path: a,b\ncreate_new_adapter: true\nlora_rank: 4",
        f"{FULL}\noptim: muon\nlayerwise_lr_decay: 0.9",
        "optim: lion_8bit\nloraplus_lr_ratio: 16",
        "lr_scheduler_type: warmup_stable_decay\nlr_decay_ratio: 0.2\nmin_lr_ratio: 0.1",
        BY_TRANSFORMERS,
        f"{BY_TRANSFORMERS}\npacking: false",
        "group_by_length: true",
        ADAPTER,
        "save_strategy: no\nresume_from_checkpoint: true",
        "on_long_row: drop",
        "bnb_4bit_quant_type: nf4",
        "quantization_bit: 8",
        "quantization_bit: 4\nbnb_4bit_quant_type: fp4",
        "quantization_bit: null",
        AUTO,
        f"{AUTO}\ntrain_batch_size: 32\ngradient_accumulation_steps: 1",
        f"{GRPO}\nreward_funcs: [format, length]\nreward_pattern: a*\nreward_max_chars: 9",
        f"{TWICE}\nreward_funcs: math_answer\nloss_type: bnpo\nepsilon: 0.1\nbeta: 0.2",
    ],
)
def test_run_yaml_is_as_good_as_the_file_it_came_from(
    text: str, resolve_text: Resolve, tmp_path: Path
):
    config = resolve_text(f"model_name_or_path: m\n{text}\n").config
    write_run_yaml(tmp_path, config)
    again = resolve_file(tmp_path / "run.yaml").config
    actions = {"resume_from_checkpoint": False}
    assert again == config.model_copy(
        update={"checkpoints": config.checkpoints.model_copy(update=actions)}
    )
    assert again.quantization.bits == config.quantization.bits
    assert again.quantization.is_firm == config.quantization.is_firm
