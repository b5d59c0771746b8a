"""ROUGE-1, ROUGE-2 and ROUGE-L: rouge-score's, with words that Chinese has too.

rouge-score takes letters and digits of ASCII for words and drops all else, so that two Chinese
texts share nothing. Here a run of Chinese, Japanese or Korean characters is cut into words by jieba
where that is installed, else into characters. What stands between such runs goes through
rouge-score's own tokenizer, so English is scored as rouge-score scores it (without stemming).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from luthier.core.errors import MissingExtraError
from luthier.evaluation.metrics.score import Score, mean_score

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")

_ASIAN = re.compile(
    "([\u3041-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\U00020000-\U0003134f]+)"
)


class WordsOrCharacters:
    """Cuts a text into what ROUGE counts; has the one method that rouge-score asks for.

    Args:
        tokenize: For what is not Chinese, Japanese or Korean.
        cut: For what is: a run of such characters to words.
    """

    def __init__(
        self, tokenize: Callable[[str], list[str]], cut: Callable[[str], Sequence[str]]
    ) -> None:
        self._tokenize = tokenize
        self._cut = cut

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text."""
        tokens: list[str] = []
        # Every second part is a run of the characters that the pattern names.
        for number, part in enumerate(_ASIAN.split(text)):
            tokens += self._cut(part) if number % 2 else self._tokenize(part)
        return tokens


def rouge(answers: Sequence[str], references: Sequence[str]) -> list[Score]:
    """Return the mean F of ROUGE-1, ROUGE-2 and ROUGE-L over the rows, each 0 to 1.

    Args:
        answers: N texts.
        references: N texts.

    Raises:
        MissingExtraError: rouge-score is not installed.
    """
    tokenizers, scorers = _rouge_score("tokenizers"), _rouge_score("rouge_scorer")
    cut, how = list, "rouge-score, no stemming"
    if any(_ASIAN.search(reference) for reference in references):
        words = _jieba_words()
        cut = words or list
        how += ", jieba words" if words else ", single characters (jieba is not installed)"
    tokenizer = WordsOrCharacters(tokenizers.DefaultTokenizer().tokenize, cut)
    scorer = scorers.RougeScorer(list(ROUGE_TYPES), tokenizer=tokenizer)
    rows = [
        scorer.score(reference, answer)
        for answer, reference in zip(answers, references, strict=True)
    ]
    return [mean_score(kind, [row[kind].fmeasure for row in rows], how) for kind in ROUGE_TYPES]


def _jieba_words() -> Callable[[str], list[str]] | None:
    if find_spec("jieba") is None:
        return None
    jieba: Any = import_module("jieba")
    # It would tell of its dictionary on standard error.
    jieba.setLogLevel(logging.WARNING)
    return jieba.lcut


def _rouge_score(module: str) -> Any:
    try:
        return import_module(f"rouge_score.{module}")
    except ImportError as error:
        raise MissingExtraError.of("rouge-score", "eval", "the metric rouge") from error
