from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from luthier.core.errors import MissingExtraError
from luthier.evaluation.intervals import estimate
from luthier.evaluation.metrics.overlap import bleu, bleu_tokenizer, chrf

ENGLISH = (
    [
        "The cat sat on the mat, and it purred.",
        "I don't know what you mean!",
        "A",
        "Bees make honey from the nectar of flowers in spring.",
        "",
    ],
    [
        "The cat sat on a mat and purred.",
        "I do not know what you mean.",
        "Nothing of this is the same",
        "Bees make their honey from nectar of spring flowers.",
        "It said nothing.",
    ],
)
CHINESE = (
    ["猫坐在垫子上。", "我不知道你的意思", "琴师用云杉做琴。"],
    ["一只猫坐在垫子上。", "我不知道你是什么意思。", "琴师用云杉和枫木做琴。"],
)
TEXTS = pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])


def sacrebleu_prints(folder, texts, metric, *flags):
    """Return what sacrebleu's command line says of texts, as JSON."""
    for name, lines in zip(("answers", "references"), texts, strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", str(folder / "references")]
    command += ["-i", str(folder / "answers"), "-m", metric, "--width", "10", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@TEXTS
def test_bleu_is_the_command_lines(tmp_path, texts):
    tokenizer = bleu_tokenizer(texts[1])
    printed = sacrebleu_prints(tmp_path, texts, "bleu", "--tokenize", tokenizer)
    found = bleu(*texts)
    assert found.value == pytest.approx(printed["score"], abs=1e-9)
    assert found.how == f"sacrebleu {printed['signature']}"
    assert f"tok:{tokenizer}" in found.how


@TEXTS
def test_chrf_is_the_command_lines(tmp_path, texts):
    printed = sacrebleu_prints(tmp_path, texts, "chrf")
    found = chrf(*texts)
    assert found.value == pytest.approx(printed["score"], abs=1e-9)
    assert found.how == f"sacrebleu {printed['signature']}"


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_any_choice_of_rows_is_scored_from_its_sums(metric):
    import sacrebleu

    answers, references = ENGLISH
    chosen = [3, 0, 0, 2, 1]
    counts = np.bincount(chosen, minlength=len(answers))[None].astype(float)
    found = metric(answers, references)
    whole = sacrebleu.BLEU() if metric is bleu else sacrebleu.CHRF()
    expected = whole.corpus_score([answers[n] for n in chosen], [[references[n] for n in chosen]])
    assert found.of_sums(counts @ found.statistics)[0] == pytest.approx(expected.score, abs=1e-9)


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_the_interval_holds_the_score(metric):
    found = estimate(metric(*ENGLISH))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_rows_are_scored_as_sentences():
    import sacrebleu

    answers, references = ENGLISH
    single = sacrebleu.BLEU(effective_order=True)
    expected = [single.sentence_score(a, [r]).score for a, r in zip(*ENGLISH, strict=True)]
    assert bleu(answers, references).row_values.tolist() == pytest.approx(expected)
    characters = [
        sacrebleu.CHRF().sentence_score(a, [r]).score for a, r in zip(*ENGLISH, strict=True)
    ]
    assert chrf(answers, references).row_values.tolist() == pytest.approx(characters)


def test_sentences_that_have_nothing_to_do_with_each_other_score_nothing():
    answers = ["Quantum computers use qubits to solve certain problems quickly."]
    references = ["My grandmother bakes wonderful apple pies every Sunday morning."]
    assert bleu(answers, references).value < 5


def test_chinese_is_scored_by_characters():
    assert bleu(*CHINESE).value > 30
    assert bleu(["今天天气很好"], ["他买了一本书"]).value == 0


@pytest.mark.parametrize(
    ("references", "tokenizer"),
    [
        (["The cat."], "13a"),
        (["猫坐在垫子上。"], "zh"),
        (["用 Python 写一个函数 add，返回两个数的和。"], "zh"),
        (["これはペンです。"], "char"),
        (["이것은 연필입니다."], "char"),
        (["Кошка сидит."], "13a"),
        (["42"], "13a"),
    ],
)
def test_the_tokenizer_is_that_of_the_references(references, tokenizer):
    assert bleu_tokenizer(references) == tokenizer


@pytest.mark.parametrize("metric", [bleu, chrf])
def test_without_sacrebleu_the_extra_is_named(monkeypatch, metric):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'luthier\[eval\]'"):
        metric(["a"], ["b"])
