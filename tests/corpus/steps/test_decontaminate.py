from __future__ import annotations

import json
import pickle
import random
from pathlib import Path

import pytest

from luthier.contracts.corpus_step import Columns, StepResult
from luthier.core.errors import DataError
from luthier.corpus.steps.decontaminate import (
    Decontaminate,
    DecontaminateSettings,
    index_evaluation,
    read_evaluation,
)

_DRAW = random.Random(0)
_EN = [f"{onset}{rhyme}" for onset in "bdfgklmnprst" for rhyme in ("ale", "ore", "in", "um")]
_ZH = [chr(0x4E00 + 7 * number) for number in range(400)]


def _say(language: str, num_words: int) -> list[str]:
    return _DRAW.choices(_EN if language == "en" else _ZH, k=num_words)


def _edit(words: list[str], language: str) -> list[str]:
    return [word if _DRAW.random() >= 0.05 else _say(language, 1)[0] for word in words]


def _join(words: list[str], language: str) -> str:
    return (" " if language == "en" else "").join(words)


def _columns(*rows: tuple[str, ...]) -> Columns:
    roles = ("user", "assistant")
    return {
        "id": [str(number) for number in range(len(rows))],
        "messages": [
            [{"role": roles[at % 2], "content": text} for at, text in enumerate(row)]
            for row in rows
        ],
    }


def _run(tests: list[tuple[str, ...]], *rows: tuple[str, ...]) -> StepResult:
    index = index_evaluation([[(f"test:{at}", turns) for at, turns in enumerate(tests)]])
    return Decontaminate(index)(_columns(*rows))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_planted_rows_are_found_and_no_others(language: str):
    tests = [(_say(language, 45), _say(language, 50)) for _ in range(200)]
    rows = [(_join(q, language), _join(a, language)) for q, a in tests]
    edited = [tuple(_join(_edit(turn, language), language) for turn in row) for row in tests]
    other = [(_join(_say(language, 45), language), "") for _ in range(200)]
    result = _run(rows, *rows, *edited, *other)
    found = {int(drop.id): drop for drop in result.drops}
    assert set(range(200)) <= found.keys()
    assert len(found.keys() & set(range(200, 400))) >= 195
    assert max(found) < 400
    assert all(drop.matched_id == f"test:{row % 200}" for row, drop in found.items())
    assert result.columns["id"] == [str(row) for row in range(600) if row not in found]
    assert len(result.columns["messages"]) == 600 - len(found)


def test_a_drop_says_where_from_and_how_much():
    words = _say("en", 20)
    result = _run([(" ".join(words), "x")], ("hello", " ".join(words[:12])))
    (drop,) = result.drops
    assert (drop.reason, drop.matched_id, drop.score) == ("leaked", "test:0", round(5 / 13, 4))
    assert drop.detail == "0.38 of a turn of test:0"


def test_repeated_run_counts_once():
    words = _say("en", 57)
    assert not _run([(" ".join(words),)], (" . ".join([" ".join(words[:8])] * 20),)).drops


def test_threshold():
    words = _say("en", 27)  # 20 runs
    index = index_evaluation([[("test:0", [" ".join(words)])]])
    columns = _columns((" ".join(words[:10]),))
    assert not Decontaminate(index)(columns).drops
    loose = DecontaminateSettings(decontaminate_threshold=0.15)
    assert len(Decontaminate(index, loose)(columns).drops) == 1


def test_short_turns_only_word_by_word():
    tests = [("What is the capital of France?", "The answer is B.")]
    assert len(_run(tests, ("what is the capital of france", "x")).drops) == 1
    assert not _run(tests, ("What is the capital of Spain?", "The answer is B.")).drops
    assert not _run(tests, ("Tell me: what is the capital of France?", "x")).drops


@pytest.mark.parametrize("language", ["en", "zh"])
def test_short_turns_with_a_word_changed(language: str):
    tests = [_say(language, size) for size in range(9, 24) for _ in range(8)]
    edited = [[*words[:3], *_say(language, 1), *words[4:]] for words in tests]
    # A third of the words stays: the same kind of question about another thing.
    other = [[*words[: len(words) // 3], *_say(language, len(words) // 2)] for words in tests]
    rows = [(_join(words, language), "x") for words in tests]
    result = _run(rows, *((_join(words, language), "x") for words in [*edited, *other]))
    found = {int(drop.id): drop.matched_id for drop in result.drops}
    assert found == {row: f"test:{row}" for row in range(len(tests))}


def test_short_turns_of_eight_words_and_less_with_a_word_changed():
    for size in (6, 8):
        words = _say("en", size)
        changed = [*words[:3], *_say("en", 1), *words[4:]]
        assert not _run([(" ".join(words), "x")], (" ".join(changed), "x")).drops


def test_short_threshold():
    words = _say("en", 12)
    index = index_evaluation([[("test:0", [" ".join(words)])]])
    columns = _columns((" ".join([*words[:5], *_say("en", 1), *words[6:]]),))
    (drop,) = Decontaminate(index)(columns).drops
    assert drop.score == round(9 / 13, 4)
    strict = DecontaminateSettings(decontaminate_short_threshold=0.7)
    assert not Decontaminate(index, strict)(columns).drops


def test_template_of_short_turns_gives_nothing_away():
    places = [" ".join(_say("en", 6)) for _ in range(30)]
    tests = [(f"what is the name of the largest town near {place}", "x") for place in places]
    rows = [f"what is the name of the largest town near {' '.join(_say('en', 6))}" for _ in "abc"]
    assert not _run(tests, *((row, "x") for row in rows)).drops
    assert len(_run(tests[:5], *((row, "x") for row in rows)).drops) == 3


def test_template_of_the_test_gives_nothing_away():
    template = " ".join(_say("en", 30))
    tests = [(f"{template} {' '.join(_say('en', 12))}", template) for _ in range(40)]
    assert not _run(tests, (template, "x")).drops
    assert len(_run(tests, (tests[3][0], "x")).drops) == 1


def test_documents_and_system_turns():
    text = " ".join(_say("en", 30))
    index = index_evaluation([[("test:0", [text])]])
    columns: Columns = {
        "id": ["doc", "system"],
        "messages": [[], [{"role": "system", "content": text}]],
        "text": [f"before {text} after", None],
    }
    assert [drop.id for drop in Decontaminate(index)(columns).drops] == ["doc"]


def test_several_sets_the_most_counts_then_the_first():
    words = _say("en", 40)
    text = " ".join(words)
    sets = [[("half:1", [" ".join(words[:20] + _say("en", 20))])], [("a:1", [text])]]
    index = index_evaluation([*sets, [("b:1", [text])]])
    assert [drop.matched_id for drop in Decontaminate(index)(_columns((text,))).drops] == ["a:1"]


def test_batches_and_pickling_make_no_difference():
    tests = [(" ".join(_say("en", 20)),) for _ in range(20)]
    rows = [*tests, *((" ".join(_say("en", 20)),) for _ in range(20))]
    index = index_evaluation([[(str(at), turns) for at, turns in enumerate(tests)]])
    step: Decontaminate = pickle.loads(pickle.dumps(Decontaminate(index)))  # noqa: S301
    whole = step(_columns(*rows)).drops
    assert len(whole) == 20
    for at, row in enumerate(rows):
        alone = step(_columns(row)).drops
        assert [drop.matched_id for drop in alone] == ([whole[at].matched_id] if at < 20 else [])


def test_nothing_to_compare_with():
    index = index_evaluation([])
    result = Decontaminate(index)(_columns(("some words that stand in no test at all",)))
    assert (len(result.drops), len(result.columns["id"])) == (0, 1)
    assert not Decontaminate(index)(_columns()).drops
    assert not _run([("",)], ("",)).drops


def test_every_text_of_a_file_is_a_turn(tmp_path: Path):
    path = tmp_path / "quiz.jsonl"
    system = {"role": "system", "content": "the same each time"}
    rows = [{"question": "q", "choices": ["a", "b"], "n": 1}, {"turns": [system, {"value": "v"}]}]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert list(read_evaluation(path)) == [
        ("quiz.jsonl:1", ["q", "a", "b"]),
        ("quiz.jsonl:2", ["v"]),
    ]
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"quiz\.jsonl"):
        list(read_evaluation(path))
