"""What was asked for and could not be had: said in one line, and recorded with the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Notice:
    """One substitution or warning.

    Attributes:
        setting: The setting that it is about, or the name of the check that gave the warning.
        asked: What the user asked for, as text.
        used: What is used in its place, as text; equal to `asked` for a plain warning.
        reason: Why, in one clause.
    """

    setting: str
    asked: str
    used: str
    reason: str

    def __str__(self) -> str:
        if self.asked == self.used:
            return f"{self.setting}: {self.reason}"
        return f"{self.setting}: {self.asked} -> {self.used} ({self.reason})"

    def as_json(self) -> dict[str, str]:
        """Return the notice as it stands in the run's manifest."""
        return asdict(self)
