"""What a settings file may say of each step, and what it is told where it says something else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from luthier.contracts.settings import Settings
from luthier.corpus.steps import settings as module
from luthier.corpus.steps.pii_hits import KINDS
from luthier.corpus.steps.settings import (
    DecontaminateSettings,
    ExactSettings,
    GroupSettings,
    LanguageSettings,
    NearSettings,
    PiiSettings,
    QualitySettings,
    RepairSettings,
    Rule,
    SampleSettings,
    SchemaSettings,
    SemanticSettings,
)

MODELS: dict[str, type[Settings]] = {
    "repair": RepairSettings,
    "schema": SchemaSettings,
    "quality": QualitySettings,
    "language": LanguageSettings,
    "pii": PiiSettings,
    "exact": ExactSettings,
    "near": NearSettings,
    "semantic": SemanticSettings,
    "decontaminate": DecontaminateSettings,
    "sample": SampleSettings,
    "split": GroupSettings,
}
BRACKETS = re.compile(r"\[[^\]]+\]|\{[^}]+\}")


def test_these_are_all_models_of_the_module():
    defined = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Settings) and value is not Settings
    }
    assert defined == set(MODELS.values())


def test_names_say_their_step_and_stand_once():
    names = [name for model in MODELS.values() for name in model.model_fields]
    assert [name for name, times in Counter(names).items() if times > 1] == []
    for step, model in MODELS.items():
        assert [name for name in model.model_fields if not name.startswith(step)] == []


@pytest.mark.parametrize("step", MODELS)
def test_defaults_are_valid_and_each_setting_is_described(step: str):
    model = MODELS[step]
    assert model.model_validate(model().model_dump(mode="json")) == model()
    assert [name for name, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("step", MODELS)
def test_unknown_names_are_refused(step: str):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        MODELS[step].model_validate({f"{step}_treshold": 1})


def documented() -> dict[str, str]:
    """Return the lists and mappings that the descriptions give as examples, by setting."""
    return {
        name: example
        for model in MODELS.values()
        for name, field in model.model_fields.items()
        for example in BRACKETS.findall(field.description or "")
    }


def test_lists_and_mappings_in_the_descriptions_are_accepted():
    examples = documented()
    assert examples == {"languages": "[zh, en]", "sample_weights": "{web: 3, own: 1}"}
    found = {
        name: getattr(model(**{name: YAML(typ="safe").load(examples[name])}), name)
        for model in MODELS.values()
        for name in examples.keys() & model.model_fields.keys()
    }
    assert found == {"languages": ("zh", "en"), "sample_weights": {"web": 3.0, "own": 1.0}}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (SchemaSettings, {"schema_action": "report"}),
        (LanguageSettings, {"language_detector": "lite", "languages": ["fr"]}),
        (PiiSettings, {"pii_action": "redact"}),
        (PiiSettings, {"pii_action": "mask"}),
        (PiiSettings, {"pii_action": "drop"}),
        (PiiSettings, {"pii_action": "report"}),
        (PiiSettings, {"pii_allow": ["support@luthier.example"], "pii_phone_regions": ["CN"]}),
        (SemanticSettings, {"semantic_model": "minishlab/potion-base-8M"}),
        (SemanticSettings, {"semantic_scope": "prompt"}),
        (SemanticSettings, {"semantic_scope": "answer"}),
        (NearSettings, {"near_quality_column": "score"}),
        (DecontaminateSettings, {"decontaminate_files": ["mmlu.parquet", "own.csv"]}),
        (ExactSettings, {"exact_source_priority": ["own", "web"]}),
    ],
)
def test_values_that_the_descriptions_name(model: type[Settings], given: dict[str, Any]):
    made = model.model_validate(given).model_dump(mode="json")
    assert {name: made[name] for name in given} == given


@pytest.mark.parametrize(
    "name", [name for name in QualitySettings.model_fields if name != "quality_report_only"]
)
def test_a_rule_of_quality_is_off_by_null(name: str):
    assert getattr(QualitySettings.model_validate({name: None}), name) is None


def test_every_rule_of_quality_can_be_reported_only():
    settings = QualitySettings(quality_report_only=get_args(Rule))
    assert "sensitive_word" in settings.quality_report_only


def test_all_kinds_of_personal_data_are_looked_for_by_default():
    assert PiiSettings().pii_kinds == KINDS


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (LanguageSettings, {"languages": []}, "languages is empty: name a language, or leave"),
        (
            LanguageSettings,
            {"languages": ["zh", "fr", "de"]},
            "languages has de, fr, which letters alone don't tell: set language_detector: lite",
        ),
        (PiiSettings, {"pii_kinds": ["email", "email"]}, "one name stands twice"),
        (PiiSettings, {"pii_phone_regions": ["CN", "US", "CN"]}, "one name stands twice"),
        (
            NearSettings,
            {"near_group_floor": 0.7},
            "near_group_floor and near_scope_threshold are at most near_threshold",
        ),
        (NearSettings, {"near_threshold": 0.3}, "are at most near_threshold"),
        (NearSettings, {"near_scope_threshold": 0.61}, "are at most near_threshold"),
    ],
)
def test_settings_that_contradict_each_other(
    model: type[Settings], given: dict[str, Any], message: str
):
    with pytest.raises(ValidationError, match=re.escape(message)):
        model.model_validate(given)


def test_bounds_that_are_equal_are_no_contradiction():
    given = {"near_threshold": 0.5, "near_group_floor": 0.5, "near_scope_threshold": 0.5}
    assert NearSettings.model_validate(given).model_dump().items() >= given.items()


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        (SchemaSettings, {"schema_action": "mend"}, "'drop' or 'report'"),
        (QualitySettings, {"quality_min_answer_chars": 0}, "greater than or equal to 1"),
        (QualitySettings, {"quality_max_run": 31}, "greater than or equal to 32"),
        (QualitySettings, {"quality_max_symbols": 1}, "less than 1"),
        (QualitySettings, {"quality_max_repeated_words": 0}, "greater than 0"),
        (QualitySettings, {"quality_report_only": ["refusals"]}, "'refusal'"),
        (LanguageSettings, {"language_min_score": 1.1}, "less than or equal to 1"),
        (LanguageSettings, {"language_detector": "full"}, "'script' or 'lite'"),
        (PiiSettings, {"pii_kinds": []}, "at least 1 item"),
        (PiiSettings, {"pii_kinds": ["name"]}, "'email'"),
        (PiiSettings, {"pii_action": "hide"}, "'redact', 'mask', 'drop' or 'report'"),
        (NearSettings, {"near_template_share": 0}, "greater than 0"),
        (NearSettings, {"near_template_min_rows": 0}, "greater than or equal to 1"),
        (SemanticSettings, {"semantic_threshold": 1.2}, "less than or equal to 1"),
        (SemanticSettings, {"semantic_scope": "all"}, "'prompt', 'answer' or 'both'"),
        (DecontaminateSettings, {"decontaminate_threshold": 0}, "greater than 0"),
        (SampleSettings, {"sample_weights": {"web": -1}}, "greater than or equal to 0"),
        (SampleSettings, {"sample_size": 0}, "greater than or equal to 1"),
        (SampleSettings, {"sample_max_per_source": 0}, "greater than or equal to 1"),
        (GroupSettings, {"split_likeness": 0}, "greater than 0"),
        (GroupSettings, {"split_likeness": float("nan")}, "finite number"),
    ],
)
def test_values_out_of_bounds(model: type[Settings], given: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        model.model_validate(given)


def test_settings_are_checked_before_any_library_is_loaded():
    heavy = ("numpy", "torch", "transformers", "pyarrow", "phonenumbers", "ahocorasick_rs")
    code = (
        "import sys\nimport luthier.corpus.steps.settings\n"
        f"print('LOADED', sorted(set({heavy!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "LOADED []"
