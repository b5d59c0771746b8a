from __future__ import annotations

import sys

import pytest

from luthier.core.errors import MissingExtraError, SettingsError
from luthier.evaluation.metrics.registry import (
    METRICS,
    SCORE_NAMES,
    check_metrics,
    suitable_metrics,
    try_metrics,
)


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_finds_equal_texts_equal(name):
    texts = ["One two three four five #### 5", "Six seven eight nine ten #### 10"]
    for score in METRICS[name](texts, texts):
        assert score.name in SCORE_NAMES
        assert score.value == pytest.approx(100 if name in ("bleu", "chrf") else 1)


def test_a_name_that_is_not_known_is_answered_with_the_nearest():
    check_metrics(["perplexity", *METRICS])
    with pytest.raises(SettingsError, match=r"no metric 'rogue'\n.*Did you mean rouge") as caught:
        check_metrics(["bleu", "rogue"])
    assert "FILE.py:FUNCTION" in str(caught.value.mend)


def test_a_missing_package_shows_on_one_word(monkeypatch):
    try_metrics(list(METRICS))
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingExtraError, match="the metric chrf needs the package sacrebleu"):
        try_metrics(["rouge", "chrf"])


def test_metrics_suit_the_references():
    assert suitable_metrics(["x #### 1"]) == ["math_answer"]
    assert suitable_metrics(["x"]) == ["bleu", "chrf", "rouge", "exact_match"]
