from __future__ import annotations

import json
import math

import pytest

from luthier.core.errors import RunError
from luthier.evaluation.intervals import Difference, Estimate
from luthier.recipes.evaluation_result import (
    Changed,
    Evaluation,
    MetricResult,
    write_evaluation,
)

DATA = {"path": "rows.jsonl", "sha256": "ab", "rows": 7}
SHARE = Estimate(0.5, 0.2, 0.8, 7)


def test_the_file_of_a_model_alone(tmp_path):
    metrics = {"perplexity": MetricResult(Estimate(math.inf, None, None, 7), "exp")}
    evaluation = Evaluation("val", "run", None, DATA, metrics, left_out=[("a:1", "long")])
    write_evaluation(evaluation, tmp_path / "deep")
    assert evaluation.files == [tmp_path / "deep" / "val.json"]
    found = json.loads((tmp_path / "deep" / "val.json").read_text())
    assert found.pop("created").endswith("+00:00")
    assert found == {
        "name": "val",
        "model": "run",
        "base": False,
        "data": DATA,
        "metrics": {"perplexity": {"value": None, "low": None, "high": None, "n": 7, "how": "exp"}},
        "versus": None,
        "left_out": [{"origin": "a:1", "reason": "long"}],
        "notes": [],
        "answers": None,
    }


def test_the_file_of_a_comparison(tmp_path):
    difference = Difference(Estimate(0.25, 0.0, 0.5, 7), 3, 1, 3)
    metrics = {
        "exact_match": MetricResult(SHARE, "", Estimate(0.25, 0.1, 0.6, 7), difference),
        "mine": MetricResult(SHARE, "", SHARE),
    }
    changed = Changed("exact_match", "a:1", "Q", "R", 0.0, 1.0, "no", "yes")
    evaluation = Evaluation("v", "run", "base", DATA, metrics, [changed], predictions=[{"a": "琴"}])
    write_evaluation(evaluation, tmp_path)
    found = json.loads((tmp_path / "v.json").read_text())
    assert found["base"] is True
    assert found["answers"] == "v.answers.jsonl"
    assert (tmp_path / "v.answers.jsonl").read_text(encoding="utf-8") == '{"a": "琴"}\n'
    versus = found["versus"]
    assert versus["model"] == "base"
    assert versus["metrics"]["exact_match"] == {
        "base": {"value": 0.25, "low": 0.1, "high": 0.6, "n": 7},
        "difference": {"value": 0.25, "low": 0.0, "high": 0.5, "n": 7},
        "wins": 3,
        "losses": 1,
        "ties": 3,
    }
    assert versus["metrics"]["mine"]["difference"] is None
    assert versus["changed"] == [
        {
            "metric": "exact_match",
            "origin": "a:1",
            "prompt": "Q",
            "reference": "R",
            "base": 0.0,
            "tuned": 1.0,
            "base_answer": "no",
            "tuned_answer": "yes",
        }
    ]


def test_a_folder_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    evaluation = Evaluation("v", "run", None, DATA, {})
    with pytest.raises(RunError, match=r"the evaluation can't be written(.|\n)*--out FOLDER"):
        write_evaluation(evaluation, tmp_path / "file" / "x")
