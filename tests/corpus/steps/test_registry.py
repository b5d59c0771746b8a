from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.corpus_step import GlobalStep, Step
from luthier.core.errors import DataError, SettingsError
from luthier.corpus.steps.decontaminate import DecontaminateSettings
from luthier.corpus.steps.quality import QualitySettings
from luthier.corpus.steps.registry import STANDARD, STEPS, plan_steps


def test_each_step_answers_to_its_name():
    for name in STANDARD:
        (planned,) = plan_steps([name], {})
        assert planned.step.name == name
        step: Any = planned.step
        assert isinstance(step, GlobalStep) or callable(step)


def test_leaf_names_are_unique_over_all_steps():
    names = [leaf for kind in STEPS.values() for leaf in kind.settings.model_fields]
    assert len(names) == len(set(names))


def test_every_setting_says_what_it_means():
    for kind in STEPS.values():
        for leaf, field in kind.settings.model_fields.items():
            assert field.description, leaf


def test_the_plan_keeps_the_order_of_the_names():
    plan = plan_steps(["exact", "repair"], {})
    assert [planned.step.name for planned in plan] == ["exact", "repair"]


def test_settings_reach_the_step_and_its_key():
    strict = plan_steps(["quality"], {"quality": QualitySettings(quality_min_answer_chars=9)})
    assert strict[0].settings["quality_min_answer_chars"] == 9
    assert strict[0].settings != plan_steps(["quality"], {})[0].settings


def test_the_content_of_a_named_file_is_part_of_the_key(tmp_path: Path):
    words = tmp_path / "words.txt"
    seen = []
    for word in ("ugly", "bad"):
        words.write_text(word + "\n", encoding="utf-8")
        settings = {"quality": QualitySettings(quality_word_list=str(words))}
        seen.append(plan_steps(["quality"], settings)[0].settings["files"])
    assert seen[0] != seen[1]


def test_decontamination_finds_a_test_row(tmp_path: Path):
    question = "How many strings has the long korvane that stands in the hall of Velmora?"
    tests = tmp_path / "test.jsonl"
    tests.write_text(json.dumps({"question": question}) + "\n", encoding="utf-8")
    settings = {"decontaminate": DecontaminateSettings(decontaminate_files=(str(tests),))}
    step: Any = plan_steps(["decontaminate"], settings)[0].step
    assert not isinstance(step, GlobalStep)
    rows = [question, "What colour is the door of the old workshop by the river?"]
    columns = {
        "id": ["a", "b"],
        "messages": [[{"role": "user", "content": text, "weight": 1.0}] for text in rows],
        **{name: [None, None] for name in ("text", "chosen", "rejected", "label", "tools")},
    }
    assert [drop.id for drop in step(columns).drops] == ["a"]


def test_unknown_steps_are_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="there is no step repare") as caught:
        plan_steps(["repare"], {})
    assert "repair" in str(caught.value)


def test_a_step_stands_once():
    with pytest.raises(SettingsError, match="the step exact stands twice"):
        plan_steps(["exact", "exact"], {})


def test_decontamination_needs_a_test_set():
    with pytest.raises(SettingsError, match="no evaluation set to look for"):
        plan_steps(["decontaminate"], {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    settings = {"quality": QualitySettings(quality_word_list=str(tmp_path / "none.txt"))}
    with pytest.raises(DataError, match="can't be read") as caught:
        plan_steps(["quality"], settings)
    assert "none.txt" in str(caught.value)


def test_steps_implement_the_protocol():
    step: Step | GlobalStep = plan_steps(["repair"], {})[0].step
    assert step.name == "repair"
