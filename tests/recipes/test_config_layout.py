"""The index of all settings: every name once, every name documented, every choice known."""

from __future__ import annotations

import pytest

from luthier.recipes.config_layout import (
    BARE_FLAGS,
    chosen_model,
    default_choice,
    leaves,
    sections,
)
from luthier.recipes.run_config import RunConfig


def test_leaf_names_are_unique_and_differ_from_section_names():
    count = sum(
        len({name for model in models for name in model.model_fields})
        for models in sections().values()
    )
    assert len(leaves()) == count
    assert not set(leaves()) & set(sections())


def test_sections_are_those_of_run_config_in_its_order():
    assert list(sections()) == list(RunConfig.model_fields)


@pytest.mark.parametrize("name", leaves())
def test_every_setting_has_a_description_and_a_name_that_a_flag_can_have(name: str):
    description = leaves()[name].field.description or ""
    assert len(description) > 15, description
    assert description.strip().endswith((".", "`"))
    assert name.isidentifier()
    assert name == name.lower()


def test_a_choice_between_methods_knows_which_choices_use_a_setting():
    assert leaves()["lora_rank"].choices == ("lora",)
    assert leaves()["freeze_trainable_layers"].choices == ("freeze",)
    assert leaves()["finetuning_type"].choices == ("lora", "full", "freeze")
    adamw = ("adamw_torch", "muon", "schedule_free_adamw", "adamw_8bit", "paged_adamw_8bit")
    assert leaves()["adam_beta1"].choices == adamw
    assert leaves()["lion_beta1"].choices == ("lion", "lion_8bit")
    assert leaves()["learning_rate"].choices == ()


@pytest.mark.parametrize(
    ("section", "choice", "name"),
    [
        ("tuning", "freeze", "FreezeTuning"),
        ("optimizer", "adafactor", "AdafactorOptimizer"),
        ("schedule", None, "ScheduleSettings"),
    ],
)
def test_chosen_model(section: str, choice: str | None, name: str):
    assert chosen_model(section, choice).__name__ == name


def test_default_choice():
    assert default_choice("tuning") == "lora"
    assert default_choice("optimizer") == "adamw_torch"
    assert default_choice("run") is None


def test_which_settings_take_true_and_false():
    taking = {name for name, leaf in leaves().items() if leaf.accepts_bool}
    assert taking >= BARE_FLAGS | {"bf16", "fp16", "gradient_checkpointing", "overwrite_cache"}
    assert not taking & {"learning_rate", "seed", "train_file", "lora_target", "quantization_bit"}
    switches = {name for name, leaf in leaves().items() if leaf.words_of_switch}
    assert switches == taking - BARE_FLAGS
    assert leaves()["bf16"].words_of_switch == ("true", "false", "null")
    assert "auto" in leaves()["gradient_checkpointing"].words_of_switch


def test_which_settings_take_brackets():
    taking = {name for name, leaf in leaves().items() if leaf.accepts_collection}
    assert taking == {
        *("train_file", "val_file", "dataset", "task_weights", "report_to"),
        *("lora_target", "additional_target", "freeze_extra_modules"),
        *("freeze_chosen_layers", "freeze_trainable_modules"),
        *("sources", "steps", "step_settings", "quality_report_only", "languages", "pii_kinds"),
        *("pii_phone_regions", "pii_allow", "exact_source_priority", "decontaminate_files"),
        *("sample_weights", "allow_change", "new_special_tokens", "add_tokens"),
        *("reward_funcs", "reward_weights", "sample_prompts", "callbacks"),
    }


def test_options_that_a_type_spells_out():
    assert leaves()["quantization_bit"].options == (4, 8)
    trackers = ("tensorboard", "wandb", "mlflow", "trackio", "swanlab")
    assert leaves()["report_to"].options == ("none", *trackers)
    assert leaves()["learning_rate"].options == ()


def test_a_word_for_a_list_is_a_list_of_one():
    only_lists = {name for name, leaf in leaves().items() if leaf.accepts_only_lists}
    assert {"steps", "languages", "decontaminate_files", "pii_kinds", "sources"} <= only_lists
    assert not {"train_file", "lora_target", "task_weights", "report_to"} & only_lists
