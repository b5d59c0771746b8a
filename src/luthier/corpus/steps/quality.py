"""Quality: answers and documents that teach nothing good, each with the rule that says so.

In: any rows. Out: those that break no rule, or only rules that report. What is judged is what would
be taught: answers that carry loss, the chosen side of a pair, documents. The bounds are wide: on
the public sets that they were chosen on they drop what is broken, not what is unusual.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luthier.contracts.corpus_step import Columns, Drop, StepResult
from luthier.corpus.steps.settings import QualitySettings, Rule
from luthier.corpus.text.fields import cell, kept, num_rows, taught_texts, texts_of
from luthier.corpus.text.measures import (
    is_cut_off,
    is_refusal,
    longest_run,
    repeated_lines,
    repeated_words,
    symbol_share,
)
from luthier.corpus.text.word_list import lines_found, read_word_list

Finding = tuple[str, float | None]
"""What a rule found, in the row's own figures, and the share that it measured, if it did."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The step `quality`.

    Attributes:
        settings: The bounds.
        words: The user's words with their lines. They are read once, by `of`, so that the step
            carries them to other processes, and a cache sees that the list has changed.
    """

    settings: QualitySettings = field(default_factory=QualitySettings)
    words: tuple[tuple[int, str], ...] = ()
    name: str = "quality"

    @classmethod
    def of(cls, settings: QualitySettings) -> Quality:
        """Build the step, and read the word list that its settings name.

        Raises:
            SettingsError: The word list can't be read, or is empty.
        """
        path = settings.quality_word_list
        return cls(settings, read_word_list(Path(path)) if path is not None else ())

    def __call__(self, columns: Columns) -> StepResult:
        """Take out the rows that break a rule.

        Args:
            columns: Rows.

        Returns:
            The rows that hold; a drop for each other, by the first rule that it breaks; counts
            `reported_<rule>` of the kept rows that break a rule in `quality_report_only`.

        Raises:
            MissingExtraError: There is a word list, and ahocorasick_rs is not installed.
        """
        rows: list[int] = []
        drops: list[Drop] = []
        counts: Counter[str] = Counter()
        report_only = self.settings.quality_report_only
        for row in range(num_rows(columns)):
            broken: dict[Rule, Finding] = dict(self.findings(columns, row))
            fatal = [item for item in broken.items() if item[0] not in report_only]
            if fatal:
                rule, (detail, score) = fatal[0]
                drops.append(Drop(columns["id"][row], rule, detail, score=score))
                continue
            rows.append(row)
            counts.update(f"reported_{rule}" for rule in broken)
        return StepResult(kept(columns, rows), drops, counts)

    def findings(self, columns: Columns, row: int) -> Iterator[tuple[Rule, Finding]]:
        """Yield each rule that a row breaks, in the order in which they count.

        Args:
            columns: Rows.
            row: Which of them.
        """
        taught = taught_texts(columns, row)
        yield from self._lengths(columns, row, taught)
        # A document is cut to size by whoever made the set, and refuses nothing.
        is_document = isinstance(cell(columns, "text", row), str)
        for rule, is_broken in _RULES.items():
            if is_document and rule in ("truncated", "refusal"):
                continue
            for text in taught:
                if (found := is_broken(text, self.settings)) is not None:
                    yield rule, found
                    break
        if self.words:
            lines = [lines_found(self.words, text) for text in texts_of(columns, row)]
            if listed := sorted(set().union(*lines)):
                # The line and not the word: an account of drops is read by others than the list.
                where = ", ".join(map(str, listed[:5]))
                yield "sensitive_word", (f"words of the list, line {where}", None)

    def _lengths(
        self, columns: Columns, row: int, taught: list[str]
    ) -> Iterator[tuple[Rule, Finding]]:
        is_document = isinstance(cell(columns, "text", row), str)
        name = "quality_min_text_chars" if is_document else "quality_min_answer_chars"
        low, high = getattr(self.settings, name), self.settings.quality_max_chars
        shortest = min((len(text.strip()) for text in taught), default=None)
        if low is not None and shortest is not None and shortest < low:
            yield "too_short", (f"{shortest} characters, {name} is {low}", None)
        if high is None:
            return
        if (size := sum(map(len, texts_of(columns, row)))) > high:
            yield "too_long", (f"{size} characters, quality_max_chars is {high}", None)


def _run(text: str, settings: QualitySettings) -> Finding | None:
    high, run = settings.quality_max_run, longest_run(text)
    if high is None or run <= high:
        return None
    return f"one character {run} times in a row, quality_max_run is {high}", None


def _repeated_words(text: str, settings: QualitySettings) -> Finding | None:
    high = settings.quality_max_repeated_words
    if high is None:
        return None
    return _above(high, repeated_words(text, above=high), "five-word sequences repeat")


def _repeated_lines(text: str, settings: QualitySettings) -> Finding | None:
    high = settings.quality_max_repeated_lines
    return _above(high, repeated_lines(text), "the text is repeated lines") if high else None


def _symbols(text: str, settings: QualitySettings) -> Finding | None:
    high = settings.quality_max_symbols
    return _above(high, symbol_share(text), "the characters are symbols") if high else None


def _above(high: float, share: float, what: str) -> Finding | None:
    return (f"{share:.0%} of {what}, at most {high:.0%} may", share) if share > high else None


def _cut_off(text: str, settings: QualitySettings) -> Finding | None:
    return (
        ("the text ends within a sentence or a block of code", None) if is_cut_off(text) else None
    )


def _refusal(text: str, settings: QualitySettings) -> Finding | None:
    return ("the answer begins by refusing", None) if is_refusal(text) else None


_RULES: Mapping[Rule, Callable[[str, QualitySettings], Finding | None]] = {
    "repeated_characters": _run,
    "repeated_words": _repeated_words,
    "repeated_lines": _repeated_lines,
    "symbols": _symbols,
    "truncated": _cut_off,
    "refusal": _refusal,
}
