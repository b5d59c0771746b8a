from __future__ import annotations

import json

import pytest

from luthier.core.errors import RunError
from luthier.evaluation.generation import Answer
from luthier.recipes.answer_cache import AnswerCache

ONE, TWO = Answer("Yes.", 2, "stop"), Answer("No, 琴", 4, "length")
IDENTITY = {"model": {"weights_sha256": {"a": "1"}}, "weights": "float32"}


def test_answers_are_found_again(tmp_path):
    path = tmp_path / "deep" / "a.jsonl"
    cache = AnswerCache(path)
    assert cache.get([1, 2]) is None
    cache.add([1, 2], ONE)
    cache.add([1, 3], TWO)
    for known in (cache, AnswerCache(path)):
        assert known.get([1, 2]) == ONE
        assert known.get([1, 3]) == TWO
        assert known.get([1]) is None


@pytest.mark.parametrize("torn", ['{"prompt": "ab', "\x00\x00", '{"prompt": 1}'])
def test_a_torn_line_costs_one_answer(tmp_path, torn):
    path = tmp_path / "a.jsonl"
    AnswerCache(path).add([1], ONE)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(torn)
    cache = AnswerCache(path)
    cache.add([2], TWO)
    cache.add([3], ONE)
    again = AnswerCache(path)
    assert (again.get([1]), again.get([2]), again.get([3])) == (ONE, TWO, ONE)
    assert len(path.read_text().split("\n")) == 5


def test_answers_depend_on_model_length_and_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path))
    first = AnswerCache.of(IDENTITY, 8).path
    assert first.parent == tmp_path / "answers"
    assert AnswerCache.of(json.loads(json.dumps(IDENTITY)), 8).path == first
    assert AnswerCache.of(IDENTITY, 9).path != first
    assert AnswerCache.of({**IDENTITY, "weights": "bfloat16"}, 8).path != first
    monkeypatch.setattr("luthier.recipes.answer_cache.package_versions", lambda: {"torch": "1"})
    assert AnswerCache.of(IDENTITY, 8).path != first


def test_a_place_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"the answers can't be kept(.|\n)*LUTHIER_CACHE"):
        AnswerCache(tmp_path / "file" / "a.jsonl").add([1], ONE)
