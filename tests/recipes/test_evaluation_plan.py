from __future__ import annotations

import pytest

from luthier.evaluation.settings import GenerationSettings
from luthier.recipes.evaluation_plan import EvaluationRequest, Plan


@pytest.mark.parametrize(
    ("changes", "only_tasks"),
    [
        ({"tasks": ["arc_easy"]}, True),
        ({"tasks": ["arc_easy"], "base": "", "num_rows": 3}, True),
        ({"tasks": ["arc_easy"], "data": "rows.jsonl"}, False),
        ({"tasks": ["arc_easy"], "metrics": ["bleu"]}, False),
        ({}, False),
    ],
)
def test_tasks_alone_need_no_rows(changes, only_tasks):
    assert EvaluationRequest("m", **changes).only_tasks is only_tasks


@pytest.mark.parametrize(
    ("metrics", "predict", "needed"),
    [((), False, False), (("bleu",), False, True), ((), True, True)],
)
def test_answers_are_generated_where_something_needs_them(metrics, predict, needed):
    assert Plan(True, metrics, (), predict, GenerationSettings()).needs_answers is needed
