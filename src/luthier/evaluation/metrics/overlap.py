"""BLEU and chrF: how much of the reference's words, or characters, stands in the answer.

Both are sacrebleu's: its tokenizers, its n-grams, its signature. They are metrics of the whole
corpus, made of sums over rows, so that the interval needs no second look at a text.

Shape suffixes: N rows, B choices of rows, K sums, O orders of n-grams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from luthier.core.errors import MissingExtraError
from luthier.corpus.text.scripts import language_by_script
from luthier.evaluation.metrics.score import FloatArray, Score

_BLEU_ORDER = 4
_CHRF_ORDER = 6
_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}


def bleu_tokenizer(references: Sequence[str]) -> str:
    """Return sacrebleu's tokenizer for a language, as the characters of the references tell it.

    `zh` for Chinese; `char` for Japanese and Korean, whose own tokenizers want further packages;
    `13a`, sacrebleu's default, for all else.
    """
    language, is_sure = language_by_script("\n".join(references))
    return _TOKENIZERS.get(language, "13a") if is_sure else "13a"


def bleu(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Return the corpus BLEU (0 to 100), as `sacrebleu` prints it.

    A row by itself is scored over the n-grams that it is long enough for (effective order).

    Args:
        answers: N texts.
        references: N texts.

    Raises:
        MissingExtraError: sacrebleu is not installed.
    """
    metrics = _sacrebleu("bleu")
    tokenizer = bleu_tokenizer(references)
    whole = metrics.BLEU(tokenize=tokenizer)
    whole.corpus_score(list(answers), [list(references)])
    single = metrics.BLEU(tokenize=tokenizer, effective_order=True)
    rows = [
        single.sentence_score(answer, [reference])
        for answer, reference in zip(answers, references, strict=True)
    ]
    statistics_NK = np.asarray(
        [[row.sys_len, row.ref_len, *row.counts, *row.totals] for row in rows], dtype=np.float64
    )

    def of_sums(sums_BK: FloatArray) -> FloatArray:
        return np.asarray(
            [
                metrics.BLEU.compute_bleu(
                    correct=sums[2 : 2 + _BLEU_ORDER],
                    total=sums[2 + _BLEU_ORDER :],
                    sys_len=int(sums[0]),
                    ref_len=int(sums[1]),
                    smooth_method=whole.smooth_method,
                ).score
                for sums in sums_BK.tolist()
            ]
        )

    rows_N = np.asarray([row.score for row in rows])
    return Score("bleu", statistics_NK, of_sums, rows_N, f"sacrebleu {whole.get_signature()}")


def chrf(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Return the corpus chrF (0 to 100), as `sacrebleu --metrics chrf` prints it.

    Args:
        answers: N texts.
        references: N texts.

    Raises:
        MissingExtraError: sacrebleu is not installed.

    Source:
        Popović, chrF, WMT 2015, with beta 2 and n-grams of 1 to 6 characters.
    """
    whole = _sacrebleu("chrf").CHRF()
    whole.corpus_score(list(answers), [list(references)])
    statistics_NK = np.asarray(
        [
            _character_matches(answer, reference)
            for answer, reference in zip(answers, references, strict=True)
        ],
        dtype=np.float64,
    )
    beta = float(whole.beta)

    def of_sums(sums_BK: FloatArray) -> FloatArray:
        return _f_score(sums_BK.reshape(-1, _CHRF_ORDER, 3), beta)

    rows_N = of_sums(statistics_NK)
    return Score("chrf", statistics_NK, of_sums, rows_N, f"sacrebleu {whole.get_signature()}")


def _character_matches(answer: str, reference: str) -> list[int]:
    """Return for each order the n-grams of the answer, of the reference, and of both."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    found: list[int] = []
    grams: list[tuple[Counter[str], Counter[str]]] = list(
        zip(
            extract_all_char_ngrams(answer, _CHRF_ORDER),
            extract_all_char_ngrams(reference, _CHRF_ORDER),
            strict=True,
        )
    )
    for of_answer, of_reference in grams:
        # An order that the reference is too short for is no fault of the answer.
        num_answer = of_answer.total() if of_reference else 0
        found += [num_answer, of_reference.total(), (of_answer & of_reference).total()]
    return found


def _f_score(sums_BO3: FloatArray, beta: float) -> FloatArray:
    """Return F of the mean precision and recall over the orders that both sides have."""
    answer_BO, reference_BO, both_BO = np.moveaxis(sums_BO3, 2, 0)
    counted_BO = (answer_BO > 0) & (reference_BO > 0)
    num_orders_B = np.maximum(counted_BO.sum(axis=1), 1)
    precision_B = _ratio(both_BO, answer_BO, counted_BO).sum(axis=1) / num_orders_B
    recall_B = _ratio(both_BO, reference_BO, counted_BO).sum(axis=1) / num_orders_B
    below_B = beta**2 * precision_B + recall_B
    above_B = (1 + beta**2) * precision_B * recall_B
    return 100 * _ratio(above_B, below_B, below_B > 0)


def _ratio(above: FloatArray, below: FloatArray, where: np.ndarray[Any, Any]) -> FloatArray:
    return np.divide(above, below, out=np.zeros_like(above), where=where)


def _sacrebleu(metric: str) -> Any:
    try:
        return import_module("sacrebleu.metrics")
    except ImportError as error:
        raise MissingExtraError.of("sacrebleu", "eval", f"the metric {metric}") from error
