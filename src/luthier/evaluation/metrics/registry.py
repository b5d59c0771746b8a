"""The metrics by their names on the command line, and which of them suit some data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from luthier.core.errors import SettingsError, did_you_mean
from luthier.evaluation.metrics.matches import exact_match, looks_like_math, math_answer
from luthier.evaluation.metrics.overlap import bleu, chrf
from luthier.evaluation.metrics.rouge import ROUGE_TYPES, rouge
from luthier.evaluation.metrics.score import Score

PERPLEXITY = "perplexity"
"""Needs no answer of the model's; all others are metrics of answers."""

METRICS: Mapping[str, Callable[[Sequence[str], Sequence[str]], list[Score]]] = {
    "bleu": lambda answers, references: [bleu(answers, references)],
    "chrf": lambda answers, references: [chrf(answers, references)],
    "rouge": rouge,
    "exact_match": lambda answers, references: [exact_match(answers, references)],
    "math_answer": lambda answers, references: [math_answer(answers, references)],
}
"""From answers and references to scores."""


SCORE_NAMES = (PERPLEXITY, "byte_perplexity", *METRICS, *ROUGE_TYPES)
"""What tables call them: no metric of the user's may have such a name."""


def check_metrics(names: Sequence[str]) -> None:
    """Refuse a name that no metric has.

    Raises:
        SettingsError: There is one; the message names the nearest that there is.
    """
    known = (PERPLEXITY, *METRICS)
    for name in names:
        if name not in known:
            raise SettingsError(
                f"there is no metric {name!r}",
                where="--metrics",
                mend=f"{did_you_mean(name, known)} One of your own is named by "
                "--metric FILE.py:FUNCTION.",
            )


def try_metrics(names: Sequence[str]) -> None:
    """Compute metrics of one word, so that what is missing shows before a model is loaded.

    Raises:
        MissingExtraError: A metric needs a package that is not installed.
    """
    for name in names:
        METRICS[name](["word"], ["word"])


def suitable_metrics(references: Sequence[str]) -> list[str]:
    """Return the metrics of answers that some references are made for."""
    if looks_like_math(references):
        return ["math_answer"]
    return ["bleu", "chrf", "rouge", "exact_match"]
