from __future__ import annotations

from typing import Any

import pytest

from luthier.contracts.conversation import Corpus, Origin, Rejection
from luthier.core.errors import DataError
from luthier.dataset import side as side_module
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import Side, SideMaker

SHORT = (("u", "Hi"), ("a", "Hello."))
LONG = (("u", "Hi"), ("a", "the dog " * 100))


@pytest.fixture
def make(renderer):
    def run(*conversations: Any, skip: bool = False, template: str = "chatml", **settings: Any):
        corpus = Corpus([*conversations], [Rejection(Origin("f", 0), "read", "")], 9)
        seen: list[tuple[str, int, int]] = []
        maker = SideMaker(
            renderer("chatml", template),
            DatasetSettings.model_validate({"cutoff_len": 64, **settings}),
            skip,
            lambda *state: seen.append(state),
        )
        made = maker.make(corpus)
        assert seen[-1] == ("tokenising", len(conversations), len(conversations))
        return made

    return run


def reasons(side: Side) -> list[str]:
    return [rejection.reason for rejection in side.rejections]


def test_rows_stay_with_their_conversation_and_in_order(make, talk, monkeypatch):
    monkeypatch.setattr(side_module, "BATCH_SIZE", 2)
    made = make(
        talk(*SHORT), talk(*SHORT, *SHORT), talk(*SHORT, weight=0.0), talk(*SHORT), template="qwen3"
    )
    assert [len(rows) for rows in made.rows] == [1, 2, 1]
    assert len(made.conversations) == 3
    assert made.num_read == 9
    assert reasons(made) == ["read", "no_supervised_token"]
    assert made.remarks == {"turn_by_turn": ["rows.jsonl:7"] * 2}
    assert len(made.rows_of([1, 2])) == 3
    assert made.keys([2]) == [talk(*SHORT).key()]


def test_long_rows_are_cut_and_counted(make, talk):
    made = make(talk(*LONG), talk(*SHORT))
    assert [len(rows) for rows in made.rows] == [1, 1]
    assert len(made.rows[0][0].input_ids) <= 64
    assert made.num_cut == 1
    assert made.num_tokens_cut > 100


def test_long_rows_are_dropped_where_that_is_asked_for(make, talk):
    made = make(talk(*LONG), talk(*SHORT), on_long_row="drop")
    assert len(made.rows) == 1
    assert reasons(made) == ["read", "too_long"]
    assert made.num_cut == 0


def test_rows_that_cannot_be_cut_leave(make, talk):
    made = make(talk(*SHORT * 20))
    assert reasons(made) == ["read", "too_long"]


def test_a_row_whose_answer_is_cut_away_is_never_trained_on(make, talk):
    made = make(talk(("u", "the dog " * 100), ("a", "Yes.")), min_answer_share=0.0)
    assert reasons(made) == ["read", "no_supervised_token"]
    assert made.rows == []


def test_an_answer_that_the_template_leaves_out_is_never_trained_on(make, talk, load_tiny):
    from luthier.dataset.rendering import Renderer

    tokenizer = load_tiny("chatml")
    tokenizer.chat_template = (
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    maker = SideMaker(Renderer(tokenizer), DatasetSettings(), False, lambda *_: None)
    assert reasons(maker.make(Corpus([talk(*SHORT)]))) == ["no_supervised_token"]


def test_a_refused_row_ends_the_run_or_is_counted(make, talk):
    refused = talk(("s", "Be kind."), *SHORT)
    with pytest.raises(
        DataError, match=r"rows.jsonl:7: .*System role not supported(.|\n)*on_bad_row"
    ):
        make(refused, template="gemma")
    made = make(refused, talk(*SHORT), template="gemma", skip=True)
    assert reasons(made) == ["read", "template_refused"]
    assert "System role not supported" in made.rejections[1].detail
    assert len(made.rows) == 1
