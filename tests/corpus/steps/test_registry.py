from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from luthier.contracts.corpus_step import GlobalStep, Step
from luthier.core.errors import DataError, SettingsError
from luthier.core.hashing import hash_file, hash_json
from luthier.corpus.steps import semantic
from luthier.corpus.steps.decontaminate import DecontaminateSettings
from luthier.corpus.steps.quality import QualitySettings
from luthier.corpus.steps.registry import STANDARD, STEPS, plan_steps
from luthier.corpus.steps.semantic import SemanticSettings


def test_each_step_answers_to_its_name():
    for name in (*STANDARD, "sample"):
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


def _write_test(folder: Path, name: str, question: str) -> str:
    path = folder / name
    path.write_text(json.dumps({"question": question}) + "\n", encoding="utf-8")
    return str(path)


def test_the_validation_files_of_a_run_are_evaluation_sets_too(tmp_path: Path):
    val = _write_test(tmp_path, "val.jsonl", "How many strings has the long korvane of Velmora?")
    other = _write_test(tmp_path, "test.jsonl", "Who keeps the key of the old tower by the sea?")
    (planned,) = plan_steps(["decontaminate"], {}, evaluation_files=[val])
    assert planned.settings["files"] == [hash_file(Path(val))]
    again = str(tmp_path / "." / ".." / tmp_path.name / "val.jsonl")
    settings = {"decontaminate": DecontaminateSettings(decontaminate_files=(other, val))}
    (both,) = plan_steps(["decontaminate"], settings, evaluation_files=[again, val])
    assert both.settings["files"] == [hash_file(Path(other)), hash_file(Path(val))]
    step: Any = both.step
    assert {name.partition(":")[0] for name in step.index.names} == {"test.jsonl", "val.jsonl"}
    (untouched,) = plan_steps(["repair"], {}, evaluation_files=[val])
    assert untouched.settings["files"] == []


def test_where_a_file_lies_is_no_part_of_what_a_result_depends_on(tmp_path: Path):
    facts: list[Any] = []
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        file = _write_test(tmp_path / folder, "test.jsonl", "Who keeps the key of the old tower?")
        settings = {"decontaminate": DecontaminateSettings(decontaminate_files=(file,))}
        facts += [step.settings for step in plan_steps(["decontaminate"], settings)]
    assert facts[0] == facts[1]


def _own_file(folder: Path, text: str) -> Path:
    path = folder / "own.py"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_steps_stand_between_built_in_ones(tmp_path: Path):
    file = _own_file(tmp_path, "def no_poems(row, lines=4): ...\n")
    plan = plan_steps(
        ["repair", "no_poems", "exact"],
        {},
        own_file=file,
        own_settings={"no_poems": {"lines": 3}},
    )
    assert [planned.step.name for planned in plan] == ["repair", "no_poems", "exact"]
    step: Any = plan[1].step
    assert step.settings == {"lines": 3}
    assert plan[1].settings["own"] == {"lines": 3}
    hash_json(dict(plan[1].settings))
    _own_file(tmp_path, "def no_poems(row, lines=5): ...\n")
    (changed,) = plan_steps(["no_poems"], {}, own_file=file)
    assert changed.settings["files"] != plan[1].settings["files"]


def test_an_unknown_name_is_answered_with_the_steps_of_both(tmp_path: Path):
    file = _own_file(tmp_path, "def no_poems(row): ...\n")
    with pytest.raises(SettingsError, match="there is no step no_pomes") as caught:
        plan_steps(["no_pomes"], {}, own_file=file)
    assert "Did you mean no_poems?" in str(caught.value)
    with pytest.raises(SettingsError, match="there is no step xyz") as caught:
        plan_steps(["xyz"], {}, own_file=file)
    assert {"no_poems", "repair"} <= set(re.findall(r"\w+", str(caught.value)))


def test_an_own_step_of_the_name_of_a_built_in_one(tmp_path: Path):
    file = _own_file(tmp_path, "def near(row): ...\ndef far(row): ...\n")
    with pytest.raises(SettingsError, match="function near has the name of a built-in step"):
        plan_steps(["near"], {}, own_file=file)
    assert plan_steps(["far"], {}, own_file=file)[0].step.name == "far"


def test_settings_of_own_steps_that_do_not_run(tmp_path: Path):
    file = _own_file(tmp_path, "def no_poems(row): ...\n")
    with pytest.raises(
        SettingsError, match="the step near is built in, and takes no set"
    ) as caught:
        plan_steps(["near"], {}, own_settings={"near": {"threshold": 1}})
    assert "such as near_threshold" in str(caught.value)
    with pytest.raises(SettingsError, match="step no_pomes is not among the steps") as caught:
        plan_steps(["no_poems"], {}, own_file=file, own_settings={"no_pomes": {}})
    assert "Did you mean no_poems?" in str(caught.value)
    with pytest.raises(SettingsError, match="Name it in steps"):
        plan_steps([], {}, own_file=file, own_settings={"no_poems": {}})


def test_a_model_folder_is_part_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(semantic, "_model", lambda _name: None)
    seen = []
    for content in ("a", "b"):
        (tmp_path / "model.safetensors").write_text(content, encoding="utf-8")
        settings = {"semantic": SemanticSettings(semantic_model=str(tmp_path))}
        seen.append(plan_steps(["semantic"], settings)[0].settings["files"])
    assert len(seen[0]) == 1
    assert seen[0] != seen[1]


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
