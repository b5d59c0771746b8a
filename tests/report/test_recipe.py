"""The settings that make a corpus again."""

from __future__ import annotations

from ruamel.yaml import YAML

from luthier.corpus.steps.registry import STEPS
from luthier.report.recipe import settings_yaml


def test_only_what_differs_from_the_defaults(manifest) -> None:
    defaults = STEPS["near"].settings().model_dump(mode="json")
    manifest["steps"][-1]["settings"] = defaults | {"near_threshold": 0.7, "files": ["ab"]}
    manifest["reading"] = {"min_answer_chars": 6, "on_bad_row": "error"}
    manifest["split_settings"] = {"split_likeness": 0.4}
    assert YAML(typ="safe").load(settings_yaml(manifest)) == {
        "train_file": "raw/a.jsonl",
        "seed": 42,
        "val_size": 0.05,
        "min_answer_chars": 6,
        "steps": ["repair", "quality", "language", "pii", "near"],
        "near_threshold": 0.7,
    }


def test_several_files_and_a_validation_file(manifest) -> None:
    manifest["sources"] = [{"name": "a"}, {"name": "b"}, {"name": "v", "path": "raw/客服.jsonl"}]
    manifest["inputs"] = {"train": [{}, {}], "val": [{}]}
    found = YAML(typ="safe").load(settings_yaml(manifest))
    assert found["train_file"] == ["a", "b"]
    assert found["val_file"] == "raw/客服.jsonl"


def test_own_steps_have_their_settings_in_one_place(manifest) -> None:
    manifest["steps"] += [
        {"name": "toxic", "rows_in": 1, "settings": {"own": {"limit": 1}, "files": ["ab12"]}},
        {"name": "other", "rows_in": 1, "settings": {"own": {}, "files": ["ab12"]}},
    ]
    text = settings_yaml(manifest)
    assert YAML(typ="safe").load(text)["step_settings"] == {"toxic": {"limit": 1}}
    assert "# step_file: the file of toxic, other, sha256 ab12" in text


def test_personal_values_are_counted_only(manifest) -> None:
    assert "# pii_allow: not shown here (1)" in settings_yaml(manifest)
    assert "help@example.org" not in settings_yaml(manifest)


def test_nothing_is_known() -> None:
    assert settings_yaml({}) == ""
