"""Right or wrong: answers that are the reference, or that come to the same number."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from luthier.evaluation.math_answer import final_answer, same_answer
from luthier.evaluation.metrics.score import Score, mean_score

_ENDS = ".。．!！?？"


def normalised(text: str) -> str:
    """Return what is compared of a text.

    Compatible characters are made one (NFKC: a full-width letter is the plain one), capitals
    small, white space a single space, and the stop at the end is left out.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(_ENDS).rstrip()


def exact_match(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Return the share of answers that are their reference, `normalised`."""
    rows = [
        float(normalised(answer) == normalised(reference))
        for answer, reference in zip(answers, references, strict=True)
    ]
    how = "NFKC, small letters, single spaces, no stop at the end"
    return mean_score("exact_match", rows, how, is_share=True)


def math_answer(answers: Sequence[str], references: Sequence[str]) -> Score:
    """Return the share of answers whose final number (`math_answer.py`) is the reference's."""
    rows = [
        float(same_answer(final_answer(answer), final_answer(reference)))
        for answer, reference in zip(answers, references, strict=True)
    ]
    how = r"the last \boxed{}, or what follows ####, or the last number"
    return mean_score("math_answer", rows, how, is_share=True)


def looks_like_math(references: Sequence[str]) -> bool:
    """Whether most references end with a line `#### NUMBER`, as those of GSM8K do."""
    marked = sum("####" in reference for reference in references)
    return 2 * marked > len(references)
