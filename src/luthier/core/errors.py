"""Errors for the user: what is wrong, where, and what to do.

Every error that a user can cause is a `LuthierError`. The command line prints it without a
traceback; anything else that escapes is a bug of luthier's.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LuthierError(Exception):
    """A problem that the user can mend.

    Args:
        problem: What is wrong, with the offending value.
        where: File and line, row, or setting that it comes from.
        mend: What to do about it, as an instruction.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        head = f"{self.where}: {self.problem}" if self.where else self.problem
        return f"{head}\n  {self.mend}" if self.mend else head

    def __reduce__(self) -> tuple[object, ...]:
        """Let the error cross a process border whole."""
        return _rebuild, (type(self), self.problem, self.where, self.mend)


def _rebuild(
    kind: type[LuthierError], problem: str, where: str | None, mend: str | None
) -> LuthierError:
    return kind(problem, where=where, mend=mend)


class SettingsError(LuthierError):
    """A setting is unknown, ill-typed, contradictory or not used by this run."""

    exit_code = 2


class DataError(LuthierError):
    """A data file can't be read, or a row in it can't be used."""

    exit_code = 3


class ModelError(LuthierError):
    """A model, tokenizer or chat template can't be loaded or used."""

    exit_code = 4


class RunError(LuthierError):
    """A run folder or checkpoint is missing, damaged or in use."""

    exit_code = 5


class MissingExtraError(LuthierError):
    """An optional dependency is not installed."""

    exit_code = 6

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingExtraError:
        """Build the error for one missing package.

        Args:
            package: The distribution that is missing.
            extra: luthier's extra that brings it.
            purpose: What needs it, as a noun phrase.
        """
        return cls(
            f"{purpose} needs the package {package}, which is not installed",
            mend=f"Install it with: pip install 'luthier[{extra}]'",
        )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, or None if none comes near it.

    Args:
        name: What the user wrote.
        known: The names that would have been right.
    """
    folded = {candidate.lower().replace("-", "_"): candidate for candidate in known}
    wanted = name.lower().replace("-", "_")
    matches = difflib.get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence that names the nearest known name, or else all known names."""
    choices = sorted(known)
    close = nearest(name, choices)
    if close is not None:
        return f"Did you mean {close}?"
    return f"Known: {', '.join(choices)}."
