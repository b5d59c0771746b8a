from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from luthier.contracts.question import Question
from luthier.core.errors import RunError, SettingsError
from luthier.rollouts.rewards import REWARDS, reward_functions
from luthier.rollouts.settings import RolloutSettings

QUESTION = Question.of("2 + 2?", {"question": "2 + 2?", "level": 3}, "It is 4.\n#### 4")
OWN = """
def brief(prompt, answer, row):
    return row["level"] - len(answer)

def broken(prompt, answer, row):
    return helper(answer)

def helper(answer):
    return 1 / len(answer.strip())

def says(prompt, answer, row):
    return {"nan": float("nan"), "text": "1", "none": None}[answer]
"""


def reward(*names: str, **settings: Any) -> Any:
    return reward_functions(RolloutSettings(reward_funcs=list(names), **settings))[0]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.parametrize(("answer", "value"), [("So 4.", 1.0), ("5, not 4, or 6", 0.0), ("", 0.0)])
def test_math_answer(answer: str, value: float):
    assert reward("math_answer")(QUESTION, answer, "f:1") == value


def test_math_answer_of_a_row_without_an_answer():
    question = Question.of("Hi", {}, None)
    with pytest.raises(RunError, match=r"f:1: (.|\n)*math_answer failed(.|\n)*holds no answer"):
        reward("math_answer")(question, "4", "f:1")


def test_format_is_of_the_whole_answer():
    function = reward("format", reward_pattern="<think>.*</think> *\\d+")
    assert function(QUESTION, " <think>2 + 2\nis</think> 4\n", "f:1") == 1.0
    assert function(QUESTION, "So: <think>2 + 2</think> 4", "f:1") == 0.0


def test_length_falls_evenly_and_no_further():
    function = reward("length", reward_max_chars=10)
    values = [function(QUESTION, "x" * length, "f:1") for length in (0, 10, 15, 20, 40)]
    assert values == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_own_functions_are_given_the_row(own: Path):
    function = reward(f"{own}:brief", reward_weights=[0.5])
    assert (function.name, function.weight) == ("brief", 0.5)
    assert function(QUESTION, "four", "f:1") == -1.0


def test_an_own_function_that_fails_names_file_line_and_row(own: Path):
    with pytest.raises(RunError, match=r"own\.py:9: .*broken failed on the row f:7: ZeroDivision"):
        reward(f"{own}:broken")(QUESTION, " ", "f:7")


@pytest.mark.parametrize("answer", ["nan", "text", "none"])
def test_what_is_no_number_is_refused(own: Path, answer: str):
    with pytest.raises(RunError, match=r"own\.py:11: .*says returned .* for the row f:7"):
        reward(f"{own}:says")(QUESTION, answer, "f:7")


def test_numbers_of_any_kind_are_taken(own: Path):
    function = reward(f"{own}:brief")
    level = Question("", {"level": np.float32(1.5)})
    assert function(level, "", "f:1") == 1.5


def test_functions_that_are_not_there(own: Path):
    for names, message in (
        ([], "nothing to say which answers are better(.|\n)*math_answer"),
        (["math_anser"], "no reward function math_anser(.|\n)*Did you mean math_answer"),
        ([f"{own}:breif"], "no function breif(.|\n)*Did you mean brief"),
        ([f"{own}x:brief"], "file of reward functions can't be read"),
    ):
        with pytest.raises(SettingsError, match=message):
            reward_functions(RolloutSettings(reward_funcs=names))


def test_each_name_is_documented():
    described = RolloutSettings.model_fields["reward_funcs"].description or ""
    assert all(re.search(rf"\b{name}\b", described) for name in REWARDS)
