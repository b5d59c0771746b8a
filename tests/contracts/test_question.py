from __future__ import annotations

from datetime import date

from luthier.contracts.question import Question


def test_the_reference_stands_beside_the_fields():
    row = {"question": "2 + 2?", "answer": "4", "reference": "a book"}
    assert Question.of("2 + 2?", row, "4").row == {**row, "reference": "4"}
    assert Question.of("Hi", {}, None).row == {"reference": None}


def test_what_json_does_not_have_comes_back_as_text():
    question = Question.of("几号？", {"day": date(2026, 11, 24), "n": [1, 2.5]}, None)
    again = Question.from_json(question.to_json())
    assert again.prompt == "几号？"
    assert again.row == {"day": "2026-11-24", "n": [1, 2.5], "reference": None}
