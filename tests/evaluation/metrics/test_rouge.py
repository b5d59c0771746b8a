from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from luthier.core.errors import MissingExtraError
from luthier.evaluation.metrics.rouge import ROUGE_TYPES, WordsOrCharacters, rouge

ANSWERS = ["The cat sat on the mat, and it purred.", "I don't know!", "A cafe's 3 doors", "no"]
REFERENCES = ["The cat sat on a mat and purred.", "I do not know.", "Three doors, a café", "yes"]


def test_english_is_the_command_lines(tmp_path):
    for name, lines in (("answers", ANSWERS), ("references", REFERENCES)):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "rouge_score.rouge", "--aggregate=false"]
    command += [f"--target_filepattern={tmp_path / 'references'}"]
    command += [f"--prediction_filepattern={tmp_path / 'answers'}"]
    command += [f"--output_filename={tmp_path / 'scores.csv'}"]
    subprocess.run(command, capture_output=True, check=True)
    with (tmp_path / "scores.csv").open() as stream:
        printed = list(csv.DictReader(stream))
    scores = rouge(ANSWERS, REFERENCES)
    assert [score.name for score in scores] == list(ROUGE_TYPES)
    for score in scores:
        expected = [float(row[f"{score.name}-F"]) for row in printed]
        assert score.row_values.tolist() == pytest.approx(expected, abs=1e-6)
        assert score.value == pytest.approx(sum(expected) / len(expected), abs=1e-6)
        assert score.how == "rouge-score, no stemming"


def test_chinese_is_scored_by_words():
    one, two, longest = rouge(["猫坐在垫子上"], ["一只猫坐在垫子上"])
    assert one.value > 0.7
    assert two.value > 0.4
    assert longest.value == one.value
    assert one.how.endswith("jieba words")
    assert rouge(["今天天气很好"], ["他买了一本书"])[0].value == 0


def test_without_jieba_chinese_is_scored_by_characters(monkeypatch):
    monkeypatch.setattr("luthier.evaluation.metrics.rouge.find_spec", lambda _name: None)
    one, *_ = rouge(["猫坐"], ["猫在坐"])
    assert one.value == pytest.approx(0.8)  # 2 of 2 characters, 2 of 3
    assert one.how.endswith("single characters (jieba is not installed)")


def test_both_scripts_may_stand_in_one_text():
    tokenizer = WordsOrCharacters(str.split, list)
    assert tokenizer.tokenize("用 Python 写add函数") == ["用", "Python", "写", "add", "函", "数"]


def test_without_rouge_score_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"rouge-score(.|\n)*luthier\[eval\]"):
        rouge(["a"], ["b"])
