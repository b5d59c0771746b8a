from __future__ import annotations

from datetime import UTC, datetime, timedelta

from luthier.core.clock import now


def test_the_time_has_its_zone_and_no_fraction():
    before = datetime.now(UTC).replace(microsecond=0)
    text = now()
    read = datetime.fromisoformat(text)
    assert text.endswith("+00:00")
    assert read.utcoffset() == timedelta(0)
    assert read.microsecond == 0
    assert before <= read <= datetime.now(UTC)
