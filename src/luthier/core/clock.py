"""The time, as every manifest writes it."""

from __future__ import annotations

from datetime import UTC, datetime


def now() -> str:
    """Return the time in UTC to the second, with its zone: `2026-11-05T09:30:00+00:00`."""
    return datetime.now(UTC).isoformat(timespec="seconds")
