"""What the model's settings accept, as a YAML file or a flag would give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from luthier.models.settings import (
    FreezeTuning,
    FullTuning,
    LoraTuning,
    ModelSettings,
    QuantizationSettings,
    TuningSettings,
    split_names,
)

TUNING: TypeAdapter[Any] = TypeAdapter(TuningSettings)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(True, "fa2"), (False, "auto"), ("fa2", "fa2"), ("eager", "eager"), ("sdpa", "sdpa")],
)
def test_flash_attn_as_a_bare_flag(given: Any, expected: str) -> None:
    assert ModelSettings(model_name_or_path="m", flash_attn=given).flash_attn == expected
    assert ModelSettings(model_name_or_path="m").flash_attn == "auto"
    with pytest.raises(ValidationError, match="flash_attn"):
        ModelSettings.model_validate({"model_name_or_path": "m", "flash_attn": "fa3"})


@pytest.mark.parametrize("given", [True, False, "auto"])
def test_gradient_checkpointing_is_chosen_or_left_to_the_memory(given: Any) -> None:
    settings = ModelSettings(model_name_or_path="m", gradient_checkpointing=given)
    assert settings.gradient_checkpointing is given
    assert ModelSettings(model_name_or_path="m").gradient_checkpointing == "auto"
    with pytest.raises(ValidationError, match="gradient_checkpointing"):
        ModelSettings.model_validate(
            {"model_name_or_path": "m", "gradient_checkpointing": "sometimes"}
        )


def test_the_tuning_is_chosen_by_name() -> None:
    for name, kind in {"lora": LoraTuning, "full": FullTuning, "freeze": FreezeTuning}.items():
        assert isinstance(TUNING.validate_python({"finetuning_type": name}), kind)
    with pytest.raises(ValidationError, match="lora_rank"):
        TUNING.validate_python({"finetuning_type": "full", "lora_rank": 8})
    with pytest.raises(ValidationError, match="galore"):
        TUNING.validate_python({"finetuning_type": "galore"})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("all", "all"),
        (" all ", "all"),
        (["all"], "all"),
        ("q_proj", ["q_proj"]),
        ("q_proj, v_proj,", ["q_proj", "v_proj"]),
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]),
    ],
)
def test_lora_target(given: Any, expected: Any) -> None:
    assert LoraTuning(lora_target=given).lora_target == expected


@pytest.mark.parametrize("given", ["", " , ", []])
def test_lora_target_names_something(given: Any) -> None:
    with pytest.raises(ValidationError, match="lora_target names no module: give names or all"):
        LoraTuning(lora_target=given)


def test_other_module_lists() -> None:
    assert LoraTuning().additional_target is None
    assert LoraTuning(additional_target="lm_head").additional_target == ["lm_head"]
    tuning = FreezeTuning(freeze_extra_modules="lm_head,norm")
    assert tuning.freeze_extra_modules == ["lm_head", "norm"]
    assert split_names(None) is None


@pytest.mark.parametrize("given", [r".*\.(0|1)\..*_proj", r"model\.layers\.\d{1,2}\.q_proj"])
def test_a_regular_expression_is_told_by_its_signs(given: str) -> None:
    assert LoraTuning(lora_target=given).lora_target == given
    with pytest.raises(ValidationError, match="lora_target is no regular expression: missing"):
        LoraTuning(lora_target="(q_proj")


@pytest.mark.parametrize("given", ["pissa", "pissa_niter_16", "olora"])
def test_what_takes_from_the_base(given: str) -> None:
    assert LoraTuning(lora_init=given).takes_from_base
    with pytest.raises(ValidationError, match=f"use_dora is not used with lora_init: {given}"):
        LoraTuning(lora_init=given, use_dora=True)


@pytest.mark.parametrize("given", ["default", "gaussian", "eva"])
def test_what_leaves_the_base_alone(given: str) -> None:
    assert not LoraTuning(lora_init=given, use_dora=True).takes_from_base


@pytest.mark.parametrize("given", ["pissa_niter_0", "pissa_niter_", "Eva", "PiSSA"])
def test_unknown_beginnings(given: str) -> None:
    with pytest.raises(ValidationError, match="it can be default, gaussian, pissa, pissa_niter_"):
        LoraTuning(lora_init=given)


def test_new_tokens_are_a_comma_string_or_a_list() -> None:
    settings = ModelSettings(
        model_name_or_path="m",
        new_special_tokens="<a>, <b>,",  # type: ignore[arg-type]
        add_tokens=["all", "two words"],
    )
    assert settings.new_tokens == ["<a>", "<b>", "all", "two words"]
    assert ModelSettings(model_name_or_path="m").new_tokens == []
    assert ModelSettings(model_name_or_path="m", add_tokens=None).new_tokens == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("special", "words", "problem"),
    [(["<a>"], ["<a>"], "'<a>' twice"), (["<a>", "<a>"], [], "twice"), ([], [" "], "but space")],
)
def test_a_new_token_is_something_and_said_once(
    special: list[str], words: list[str], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        ModelSettings(model_name_or_path="m", new_special_tokens=special, add_tokens=words)


def test_adapters_come_between_commas() -> None:
    settings = ModelSettings(model_name_or_path="m", adapter_name_or_path="~/a, b")
    assert settings.adapters == [str(Path("~/a").expanduser()), "b"]
    assert ModelSettings(model_name_or_path="m").adapters == []
    with pytest.raises(ValidationError, match="a comma with no adapter beside it"):
        ModelSettings(model_name_or_path="m", adapter_name_or_path="a,")


def test_which_layers_are_trained_is_said_once() -> None:
    assert FreezeTuning(freeze_chosen_layers=[0, 3]).freeze_chosen_layers == [0, 3]
    with pytest.raises(ValidationError, match="is not used by freeze_chosen_layers"):
        FreezeTuning(freeze_chosen_layers=[0], freeze_trainable_layers=1)
    for name in ("freeze_chosen_layers", "freeze_trainable_modules"):
        with pytest.raises(ValidationError, match=f"{name} is empty: nothing would be trained"):
            FreezeTuning.model_validate({name: []})


def test_freezing_all_layers_is_refused() -> None:
    with pytest.raises(ValidationError, match="freeze_trainable_layers can't be 0"):
        FreezeTuning(freeze_trainable_layers=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lora_rank", 0), ("lora_alpha", 0), ("lora_dropout", 1.0), ("lora_dropout", -0.1)],
)
def test_impossible_values_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValidationError, match=name):
        LoraTuning.model_validate({name: value})


@pytest.mark.parametrize(
    ("values", "bits", "firm"),
    [
        ({}, None, False),
        ({"quantization_bit": 4}, 4, True),
        ({"quantization_bit": 8}, 8, True),
        ({"bnb_4bit_quant_type": "nf4"}, 4, False),
        ({"bnb_4bit_use_double_quant": False}, 4, False),
        ({"quantization_bit": None}, None, False),
        ({"quantization_bit": None, "bnb_4bit_quant_type": "nf4"}, None, False),
        ({"quantization_bit": 4, "bnb_4bit_quant_type": "fp4"}, 4, True),
    ],
)
def test_bits(values: dict[str, Any], bits: int | None, firm: bool) -> None:
    settings = QuantizationSettings(**values)
    assert (settings.bits, settings.is_firm) == (bits, firm)


def test_resolved_settings_mean_the_same_when_read_again() -> None:
    """run.yaml holds every value, defaults too: they must not turn quantisation on."""
    resolved = QuantizationSettings().model_dump()
    assert QuantizationSettings(**resolved).bits is None


def test_four_bit_settings_are_not_used_by_eight() -> None:
    with pytest.raises(ValidationError, match="bnb_4bit_quant_type is not used by quantization_b"):
        QuantizationSettings(quantization_bit=8, bnb_4bit_quant_type="nf4")


def test_the_cache_of_frozen_layers_is_on_by_itself_and_its_room_is_no_less_than_nothing() -> None:
    tuning = FreezeTuning()
    assert tuning.freeze_cache
    assert tuning.freeze_cache_memory_gib is tuning.freeze_cache_disk_gib is None
    assert FreezeTuning(freeze_cache_disk_gib=0).freeze_cache_disk_gib == 0
    for name in ("freeze_cache_memory_gib", "freeze_cache_disk_gib"):
        with pytest.raises(ValidationError, match="greater than or equal to 0"):
            FreezeTuning.model_validate({name: -1})
