"""What the fault tests share: a process that forks runs, and the runs that nobody hurts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from fault_injection.harness import Zygote
from fault_injection.report import Report
from fault_injection.workshop import Workshop


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """A process that has loaded everything and forks the children."""
    started = Zygote()
    yield started
    started.close()


@pytest.fixture(scope="session")
def workshop(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Makes runs on a tiny model."""
    return Workshop(zygote, tmp_path_factory.mktemp("faults") / "runs")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Report:
    """Leaves a line for the fault table; a test calls it last."""
    return Report(record_property)
