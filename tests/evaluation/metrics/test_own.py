from __future__ import annotations

import pytest

from luthier.core.errors import RunError, SettingsError
from luthier.evaluation.metrics.own import own_metric
from luthier.evaluation.metrics.score import Score


@pytest.fixture
def metric(tmp_path):
    """Write a file of one function and name it."""

    def make(body, name="polite", taken=()):
        path = tmp_path / "mine.py"
        path.write_text(f"import numpy\n\n\ndef {name}(answers, references, rows):\n    {body}\n")
        return own_metric(f"{path}:{name}", taken)

    return make


def call(metric, answers=("please", "no")):
    return metric(answers, ["a", "b"], [{"id": 1}, {"id": 2}])


def test_a_number_a_row_makes_a_score(metric):
    score = call(metric("return [len(answer) + row['id'] for answer, row in zip(answers, rows)]"))
    assert isinstance(score, Score)
    assert score.row_values.tolist() == [7, 4]
    assert (score.name, score.value, score.is_share) == ("polite", 5.5, False)
    assert score.how == "mine.py:polite"


@pytest.mark.parametrize(
    "body", ["return ['please' in answer for answer in answers]", "return numpy.array([1.0, 0.0])"]
)
def test_ones_and_zeros_are_a_share(metric, body):
    score = call(metric(body))
    assert isinstance(score, Score)
    assert score.is_share
    assert score.value == 0.5


@pytest.mark.parametrize("body", ["return 0.25", "return numpy.float32(0.25)"])
def test_a_single_number_is_taken_as_it_is(metric, body):
    assert call(metric(body)) == 0.25


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [1.0]", r"returned 1 numbers for 2 answers"),
        ("return [1.0, 'good']", r"returned 'good' for row 2"),
        ("return [1.0, float('nan')]", r"returned nan for row 2"),
        ("return None", r"returned None"),
        ("return float('inf')", r"returned inf"),
        ("return 'a' * 99", r"returned 'a{59}\.\.\."),
        ("return {'a': 1.0}", r"returned \{'a': 1.0\}"),
    ],
)
def test_anything_else_is_refused_by_file_and_line(metric, body, message):
    with pytest.raises(RunError, match=message) as caught:
        call(metric(body))
    assert str(caught.value.where).endswith("mine.py:4")
    assert "one for each answer" in str(caught.value.mend)


def test_an_error_is_told_by_file_and_line(metric):
    with pytest.raises(RunError, match="the metric polite failed: KeyError: 'title'") as caught:
        call(metric("return [row['title'] for row in rows]"))
    assert str(caught.value.where).endswith("mine.py:5")
    assert "are not generated again" in str(caught.value.mend)


@pytest.mark.parametrize("named", ["polite", ":polite", "mine.py:"])
def test_a_name_without_file_or_function_is_refused(named):
    with pytest.raises(SettingsError, match="names no function"):
        own_metric(named, ())


def test_a_function_that_is_not_there_is_refused_with_the_nearest(metric, tmp_path):
    metric("return 1")
    with pytest.raises(SettingsError, match=r"no function polit\n.*Did you mean polite"):
        own_metric(f"{tmp_path / 'mine.py'}:polit", ())


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="the file of the metric can't be read"):
        own_metric(f"{tmp_path / 'none.py'}:polite", ())


def test_two_metrics_of_one_name_are_refused(metric):
    with pytest.raises(SettingsError, match="there is a metric named bleu already"):
        metric("return 1", name="bleu", taken=("bleu",))
