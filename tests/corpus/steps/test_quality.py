import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.core.errors import SettingsError
from luthier.corpus.steps.quality import Quality, QualitySettings

DATA = Path(__file__).parents[4] / "shared" / "data"
PROSE = " ".join(f"word{at}" for at in range(60)) + "."
ANSWERS = {
    "too_short": "  ",
    "repeated_characters": "啊" * 150,
    "repeated_words": "the same five words again " * 40,
    "repeated_lines": "one line that comes again\n" * 6,
    "symbols": "#$%^&*@" * 10,
    "truncated": PROSE[:-1] + " and then",
    "refusal": "I'm sorry, but I can't help with that.",
}


def rows(*answers, prompt="q"):
    def turns(answer):
        return [
            {"role": "user", "content": prompt, "weight": 1.0},
            {"role": "assistant", "content": answer, "weight": 1.0},
        ]

    return {"id": [str(at) for at in range(len(answers))], "messages": [*map(turns, answers)]}


@pytest.mark.parametrize("rule", ANSWERS)
def test_each_rule_drops_what_it_is_for_and_plain_prose_stays(rule):
    step = Quality(QualitySettings(quality_report_only=()))
    result = step(rows(PROSE, ANSWERS[rule]))
    assert result.columns["id"] == ["0"]
    assert [(drop.id, drop.reason) for drop in result.drops] == [("1", rule)]


@pytest.mark.parametrize("rule", ["truncated", "refusal"])
def test_by_default_what_may_be_meant_is_only_counted(rule):
    result = Quality()(rows(ANSWERS[rule]))
    assert (result.columns["id"], result.drops) == (["0"], [])
    assert result.counts == {f"reported_{rule}": 1}


def test_details_give_the_figures_and_the_share_is_the_score():
    (drop,) = Quality()(rows(ANSWERS["symbols"])).drops
    assert drop.detail == "100% of the characters are symbols, at most 60% may"
    assert drop.score == 1
    (drop,) = Quality(QualitySettings(quality_min_answer_chars=6))(rows("Blue.")).drops
    assert drop.detail == "5 characters, quality_min_answer_chars is 6"


def test_a_row_may_be_too_long():
    step = Quality(QualitySettings(quality_max_chars=100))
    assert [drop.reason for drop in step(rows("fine", "x y " * 30)).drops] == ["too_long"]


def test_documents_have_a_bound_of_their_own_and_may_end_anywhere():
    columns = {"id": ["a", "b"], "messages": [[], []], "text": ["too short", ANSWERS["truncated"]]}
    result = Quality()(columns)
    assert [(drop.id, drop.reason) for drop in result.drops] == [("a", "too_short")]
    assert result.counts == {}


def test_the_rejected_side_is_not_judged():
    loop = [{"role": "assistant", "content": ANSWERS["repeated_words"], "weight": 1.0}]
    fine = [{"role": "assistant", "content": PROSE, "weight": 1.0}]
    columns = {
        "id": ["a", "b"],
        "messages": [[], []],
        "chosen": [fine, loop],
        "rejected": [loop, fine],
    }
    assert [drop.id for drop in Quality()(columns).drops] == ["b"]


def test_words_of_the_users_list_drop_a_row_and_the_account_does_not_say_them(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("fine\nforbidden\n禁词\n", encoding="utf-8")
    step = Quality.of(QualitySettings(quality_word_list=str(path)))
    assert [drop.detail for drop in step(rows("A Forbidden 禁词 thing", "good")).drops] == [
        "words of the list, line 2, 3"
    ]
    assert [drop.id for drop in step(rows("x", prompt="forbidden?")).drops] == ["0"]
    path.unlink()
    assert pickle.loads(pickle.dumps(step))(rows("forbidden")).drops  # noqa: S301
    with pytest.raises(SettingsError, match="can't be read"):
        Quality.of(QualitySettings(quality_word_list=str(path)))


def test_a_rule_without_a_bound_is_not_asked():
    bounds = {name: None for name in QualitySettings.model_fields if "_m" in name}
    result = Quality(QualitySettings.model_validate(bounds))(rows(*ANSWERS.values()))
    assert result.drops == []


@pytest.mark.parametrize("value", [0, 1, -0.5])
def test_bounds_that_make_no_sense_are_refused(value):
    with pytest.raises(ValidationError, match="quality_max_symbols"):
        QualitySettings(quality_max_symbols=value)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([PROSE, *ANSWERS.values()]), max_size=8), st.data())
def test_the_result_does_not_depend_on_batches(answers, data):
    cut = data.draw(st.integers(0, len(answers)))
    whole, first, rest = (
        Quality()(rows(*part)) for part in (answers, answers[:cut], answers[cut:])
    )
    assert len(whole.drops) == len(first.drops) + len(rest.drops)
    assert whole.columns["messages"] == first.columns["messages"] + rest.columns["messages"]
    assert whole.counts == first.counts + rest.counts


@pytest.mark.skipif(not DATA.is_dir(), reason="the real sets are not here")
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("alpaca_en_demo.json", "output"),
        ("alpaca_zh_demo.json", "output"),
        ("gsm8k_test.jsonl", "answer"),
    ],
)
def test_of_the_real_sets_nothing_is_dropped(name, answer):
    content = (DATA / name).read_text(encoding="utf-8")
    is_list = name.endswith(".json")
    records = (
        json.loads(content)
        if is_list
        else [json.loads(line) for line in content.split("\n") if line]
    )
    assert Quality()(rows(*(record[answer] for record in records))).drops == []
