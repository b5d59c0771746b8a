from __future__ import annotations

import pickle
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.contracts.corpus_step import Columns, Drop
from luthier.core.errors import SettingsError
from luthier.corpus.steps.near import NearDuplicates, NearSettings

Row = tuple[str, str, str]
_SYLLABLES = [f"{onset}{rhyme}" for onset in "bdfgklmnprst" for rhyme in ("ale", "ore", "in", "um")]
_EN = [first + second for first in _SYLLABLES for second in _SYLLABLES]
_ZH = [chr(0x4E00 + 7 * number) for number in range(400)]


def _columns(rows: list[Row], **more: list[Any]) -> Columns:
    return {
        "id": [row[0] for row in rows],
        "messages": [
            [{"role": "user", "content": row[1]}, {"role": "assistant", "content": row[2]}]
            for row in rows
        ],
    } | more


def _drops(rows: list[Row], step: NearDuplicates | None = None, **more: list[Any]) -> list[Drop]:
    step = step or NearDuplicates()
    return step.decide(step.sketch(_columns(rows, **more)))


def _say(draw: random.Random, language: str, num_words: int) -> str:
    words = draw.choices(_EN if language == "en" else _ZH, k=num_words)
    return (" " if language == "en" else "").join(words)


def _edit(draw: random.Random, text: str, language: str) -> str:
    """Exchange one word in twenty, and one at least."""
    words = text.split() if language == "en" else list(text)
    for at in draw.sample(range(len(words)), max(len(words) // 20, 1)):
        words[at] = _say(draw, language, 1)
    return (" " if language == "en" else "").join(words)


def _planted(language: str, num_rows: int, seed: int = 0) -> list[Row]:
    """Rows of which every fourth has a copy with changes, named after it."""
    draw = random.Random(seed)
    rows: list[Row] = []
    for number in range(num_rows):
        row = (f"{language}{number}", _say(draw, language, 20), _say(draw, language, 60))
        rows.append(row)
        if number % 4 == 0:
            prompt, answer = (_edit(draw, text, language) for text in row[1:])
            rows.append((f"{row[0]}+", prompt, answer))
    return rows


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recall_and_precision(language: str):
    drops = _drops(_planted(language, 800))
    pairs = [{drop.id, drop.matched_id} for drop in drops]
    right = sum({f"{language}{number}", f"{language}{number}+"} in pairs for number in range(800))
    assert right >= 0.97 * 200
    assert right >= 0.98 * len(drops)
    assert {drop.reason for drop in drops} == {"dup_near"}
    assert all(drop.score is not None and 0.45 <= drop.score <= 1 for drop in drops)


def test_prompt_and_answer_must_both_be_alike():
    draw = random.Random(1)
    prompt, answer = _say(draw, "en", 20), _say(draw, "en", 40)
    rows = [
        ("a", prompt, answer),
        ("b", prompt, _say(draw, "en", 40)),
        ("c", _say(draw, "en", 20), answer),
    ]
    assert _drops(rows) == []


def test_short_answer_with_a_word_changed_is_another_answer():
    prompt = _say(random.Random(2), "en", 60)
    assert _drops([("a", prompt, "It is Paris"), ("b", prompt, "It is Rome")]) == []
    assert len(_drops([("a", prompt, "It is Paris."), ("b", f"{prompt} ", "it is paris")])) == 1


def test_longest_answer_is_kept_or_the_best_or_the_least_id():
    draw = random.Random(3)
    prompt, answer = _say(draw, "en", 20), _say(draw, "en", 40)
    rows = [("a", prompt, answer), ("b", prompt, f"{answer} indeed"), ("c", prompt, answer)]
    assert [(drop.id, drop.matched_id) for drop in _drops(rows)] == [("a", "b"), ("c", "b")]
    step = NearDuplicates(NearSettings(near_quality_column="stars"))
    drops = _drops(rows, step, stars=[None, 1, 2])
    assert [(drop.id, drop.matched_id) for drop in drops] == [("a", "c"), ("b", "c")]
    assert [drop.matched_id for drop in _drops([rows[2], rows[0]])] == ["a"]
    detail = _drops(rows)[0].detail
    assert detail.startswith("prompt 1.00, answer 0.9")


def test_chain_does_not_reach_far():
    """Each row is like the next one; the last has nothing of the first."""
    words = [f"word{number}" for number in range(200)]
    rows = [(f"{at:02}", "", " ".join(words[at * 8 : at * 8 + 60])) for at in range(16)]
    sizes = dict(zip((row[0] for row in rows), range(16), strict=True))
    drops = _drops(rows)
    kept = sizes.keys() - {drop.id for drop in drops}
    assert len(kept) >= 4  # whole components would keep one
    for drop in drops:
        assert drop.matched_id in kept
        assert abs(sizes[drop.id] - sizes[drop.matched_id]) <= 2


def test_members_of_a_family_follow_one_row_through_a_common_relative():
    draw = random.Random(4)
    prompt, answer = _say(draw, "en", 30), _say(draw, "en", 60).split()
    rows = [("base", prompt, " ".join(answer))]
    for number in range(4):
        words = list(answer)
        for at in range(number, 60, 11):
            words[at] = f"other{number}"
        rows.append((f"v{number}", prompt, " ".join(words)))
    assert len(_drops(rows)) == 4


def test_rows_of_one_set_share_their_fate():
    draw = random.Random(5)
    prompt, answer = _say(draw, "en", 20), _say(draw, "en", 60)
    rows = [("best", prompt, f"{answer} and more of it")]
    rows += [(f"same{number:03}", prompt, answer.upper()) for number in range(100)]
    drops = _drops(rows, NearDuplicates(NearSettings(near_template_min_rows=1000)))
    assert len(drops) == 100
    assert {drop.matched_id for drop in drops} == {"best"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_template_is_no_likeness(language: str):
    draw = random.Random(6)
    template, ending = _say(draw, language, 150), _say(draw, language, 60)
    rows: list[Row] = []
    for number in range(400):
        message, answer = (_say(draw, language, 15) for _ in range(2))
        rows.append((f"t{number}", f"{template} {message}", f"{ending} {answer}"))
    message = rows[7][1].removeprefix(template)
    copy = ("copy", template + _edit(draw, message, language), f"{rows[7][2]}!")
    drops = _drops([*rows, copy])
    assert [{drop.id, drop.matched_id} for drop in drops] == [{"t7", "copy"}]
    unaware = NearDuplicates(NearSettings(near_template_min_rows=1000))
    assert len(_drops(rows, unaware)) > 300  # the trap is one


def test_two_templates_alone_are_told_apart():
    draw = random.Random(7)
    prompts = [_say(draw, "en", 20), _say(draw, "en", 20)]
    rows = [(f"{row}", prompts[row % 2], _say(draw, "en", 40)) for row in range(100)]
    assert _drops([*rows, ("twin", prompts[0], rows[1][2])]) == []


def test_kinds_are_not_compared():
    text = _say(random.Random(8), "en", 40)
    step = NearDuplicates()
    messages = [[{"role": "assistant", "content": text}], [], []]
    columns: Columns = {"id": ["a", "b", "c"], "messages": messages, "text": [None, text, text]}
    drops = step.decide(step.sketch(columns))
    assert [(drop.id, drop.matched_id, drop.detail) for drop in drops] == [("c", "b", "text 1.00")]
    rows = [("a", "q", text), ("b", "q", text)]
    assert _drops(rows, label=[True, False]) == []
    assert len(_drops(rows, label=[True, True])) == 1


_ROWS = [*_planted("en", 40, 9), *_planted("zh", 40, 9)]
_EXPECTED = _drops(_ROWS)


@settings(max_examples=15, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 70))
def test_order_and_batches_make_no_difference(draw: random.Random, batch_rows: int):
    step: NearDuplicates = pickle.loads(pickle.dumps(NearDuplicates()))  # noqa: S301
    rows = draw.sample(_ROWS, len(_ROWS))
    merged: Columns = {}
    for at in range(0, len(rows), batch_rows):
        for name, values in step.sketch(_columns(rows[at : at + batch_rows])).items():
            merged.setdefault(name, []).extend(values)
    assert len(_EXPECTED) == 20
    assert step.decide(merged) == _EXPECTED


def test_few_rows():
    assert _drops([]) == []
    assert _drops([("a", "x", "y")]) == []
    assert len(_drops([("a", "", ""), ("b", "", " ")])) == 1


def test_settings_that_cannot_be():
    with pytest.raises(ValidationError, match="are at most near_threshold"):
        NearSettings(near_threshold=0.4)
    step = NearDuplicates(NearSettings(near_quality_column="stars"))
    with pytest.raises(SettingsError, match="near_quality_column: no row has a column stars"):
        _drops([("a", "x", "y")], step)
