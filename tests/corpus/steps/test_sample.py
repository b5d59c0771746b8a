from __future__ import annotations

import pickle
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.contracts.corpus_step import Columns, Drop, GlobalStep
from luthier.core.errors import SettingsError
from luthier.corpus.steps.sample import Sample, SampleSettings

Row = tuple[str, str, str | None]
"""Id, source, category; the content is the id's."""


def _rows(**sizes: int) -> list[Row]:
    return [(f"{name}#{at}", name, None) for name, size in sizes.items() for at in range(size)]


def _columns(rows: list[Row]) -> Columns:
    return {
        "id": [name for name, _, _ in rows],
        "source": [source for _, source, _ in rows],
        "category": [category for _, _, category in rows],
        "messages": [[{"role": "user", "content": name}] for name, _, _ in rows],
    }


def _drops(rows: list[Row], **settings: Any) -> list[Drop]:
    step = Sample(SampleSettings(**settings))
    return step.decide(step.sketch(_columns(rows)))


def _drawn(rows: list[Row], **settings: Any) -> list[Row]:
    gone = {drop.id for drop in _drops(rows, **settings)}
    return [row for row in rows if row[0] not in gone]


def _sizes(rows: list[Row], by: int = 1) -> dict[str | None, int]:
    return dict(Counter(row[by] for row in rows))


def test_it_is_a_global_step_and_draws_all_unless_told():
    assert isinstance(Sample(), GlobalStep)
    assert not _drops(_rows(a=5, b=1))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 3}, {"a": 30, "b": 10}),
        ({"a": 0.3, "b": 0.1}, {"a": 30, "b": 10}),
        ({"a": 1}, {"a": 10, "b": 10}),
        ({"b": 4}, {"a": 2, "b": 10}),
        ({"b": 0}, {"a": 40}),
    ],
)
def test_the_largest_mixture_in_the_given_shares(
    weights: dict[str, float], expected: dict[str, int]
):
    assert _sizes(_drawn(_rows(a=40, b=10), sample_weights=weights)) == expected


def test_a_size_keeps_the_shares_by_largest_remainder():
    rows = _rows(a=50, b=30, c=20)
    assert _sizes(_drawn(rows, sample_size=10)) == {"a": 5, "b": 3, "c": 2}
    # 3.5, 2.1 and 1.4 rows.
    assert _sizes(_drawn(rows, sample_size=7)) == {"a": 4, "b": 2, "c": 1}
    weighted = _drawn(rows, sample_weights={"a": 2}, sample_size=40)
    assert _sizes(weighted) == {"a": 20, "b": 10, "c": 10}
    assert _drawn(rows, sample_size=1000) == rows


def test_bounds_of_source_and_category():
    rows = [(f"{at}", "ab"[at % 2], (None, "x", "y")[at % 3]) for at in range(60)]
    assert _sizes(_drawn(rows, sample_max_per_source=7)) == {"a": 7, "b": 7}
    assert _sizes(_drawn(rows, sample_max_per_category=4), 2) == {None: 20, "x": 4, "y": 4}
    both = _drawn(rows, sample_max_per_source=7, sample_max_per_category=4)
    assert max(_sizes(both).values()) <= 7
    assert _sizes(both, 2)["x"] <= 4
    # The mixture is made of what the bounds leave.
    mixed = _drawn(rows, sample_max_per_source=8, sample_weights={"a": 2})
    assert _sizes(mixed) == {"a": 8, "b": 4}


def test_a_drop_says_which_bound():
    rows = [*_rows(a=10, b=4), ("c#0", "c", "x"), ("c#1", "c", "x")]
    capped = _drops(rows, sample_max_per_source=9, sample_max_per_category=1)
    assert {drop.reason for drop in capped} == {"not_sampled"}
    assert {drop.id[0]: drop.detail for drop in capped} == {
        "a": "sample_max_per_source is 9, for the source a",
        "c": "sample_max_per_category is 1, for the category x",
    }
    mixed = _drops(_rows(a=10, b=4), sample_weights={"a": 1}, sample_size=4)
    assert Counter(drop.detail for drop in mixed) == {
        "sample_size is 4": 4,
        "sample_weights: the mixture has 4 of 10 rows of the source a": 6,
    }
    assert mixed == sorted(mixed, key=lambda drop: drop.id)


def test_order_and_pickling_make_no_difference_and_the_seed_does():
    rows = _rows(a=40, b=30, c=5)
    settings: dict[str, Any] = {"sample_weights": {"a": 2}, "sample_size": 12}
    step: Sample = pickle.loads(pickle.dumps(Sample(SampleSettings(**settings))))  # noqa: S301
    first = _drops(rows, **settings)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert step.decide(step.sketch(_columns(shuffled))) == first
    assert _drops(rows, **settings, sample_seed=1) != first


def test_rows_of_the_same_content_are_told_apart_by_id():
    columns = _columns(_rows(a=6))
    columns["messages"] = [columns["messages"][0]] * 6
    step = Sample(SampleSettings(sample_size=2))
    drops = step.decide(step.sketch(columns))
    assert [drop.id for drop in drops] == ["a#2", "a#3", "a#4", "a#5"]


def test_a_drawn_row_stays_drawn_when_other_sources_grow():
    settings: dict[str, Any] = {"sample_weights": {"a": 1}}
    before = set(_drawn(_rows(a=20, b=10), **settings))
    assert before < set(_drawn(_rows(a=20, b=15), **settings))
    assert before == set(_drawn(_rows(a=20, b=10, c=30), **settings)) - set(_rows(c=30))


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 30), min_size=1),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([0.1, 0.25, 0.3, 1, 2, 7])),
    st.none() | st.integers(1, 60),
)
def test_the_mixture_is_as_large_and_as_exact_as_it_can_be(
    sizes: dict[str, int], weights: dict[str, float], size: int | None
):
    weights = {name: weight for name, weight in weights.items() if name in sizes}
    drawn = _sizes(_drawn(_rows(**sizes), sample_weights=weights, sample_size=size))
    total = sum(drawn.values())
    assert size is None or total <= size
    in_all = sum(weights.get(name, 1) for name in sizes)
    shares = {name: weights.get(name, 1) / in_all for name in sizes}
    if weights:
        assert all(abs(drawn.get(name, 0) - total * shares[name]) < 1 for name in sizes)
        if total != size:
            assert any((total + 1) * shares[name] > sizes[name] for name in sizes)


def test_a_source_that_no_row_has():
    with pytest.raises(SettingsError, match="no row is of a source wep") as caught:
        _drops(_rows(web=2, own=2), sample_weights={"wep": 2})
    assert "Did you mean web?" in str(caught.value)


def test_a_mixture_of_nothing():
    with pytest.raises(SettingsError, match="every source weighs 0"):
        _drops(_rows(a=2), sample_weights={"a": 0})
    rows: list[Row] = [("a#0", "a", "x"), ("b#0", "b", "x")]
    with pytest.raises(SettingsError, match="sample_max_per_category leaves no row of the source"):
        _drops(rows, sample_weights={"a": 1}, sample_max_per_category=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_weights": {"a": -1}},
        {"sample_weights": {"a": float("inf")}},
        {"sample_size": 0},
        {"sample_max_per_source": 0},
        {"sample_max_per_category": 0},
    ],
)
def test_settings_that_can_not_work_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValidationError):
        SampleSettings(**wrong)
