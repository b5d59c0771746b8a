"""The screen of a preparation: a line a step in a pipe, a line that moves on a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from luthier.cli import prepare_screen
from luthier.cli.prepare_screen import PrepareScreen


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the clock."""
    now_s = [100.0]
    monkeypatch.setattr(prepare_screen.time, "monotonic", lambda: now_s[0])

    def put(seconds: float) -> None:
        now_s[0] = seconds

    return put


def screen(file: io.StringIO, *, terminal: bool) -> PrepareScreen:
    return PrepareScreen(
        Console(file=file, width=100, force_terminal=terminal, highlight=False, color_system=None)
    )


def shown(one: PrepareScreen) -> tuple[str, str, float | None]:
    """Return name, words and total of the line that moves."""
    assert one._bar is not None
    (task,) = one._bar.tasks
    return task.description, task.fields["speed"], task.total


def test_in_a_pipe_a_step_is_a_line(clock: Callable[[float], None]):
    file = io.StringIO()
    with screen(file, terminal=False) as one:
        for done in (10, 20, 30):
            one.report("read", done, 0)
        one.report("[own] step", 30, 30)
        one.report("writing", 0, 0)
    assert file.getvalue().splitlines() == ["read", "[own] step", "writing"]
    assert one._bar is None


def test_a_terminal_shows_rows_speed_and_what_is_left(clock: Callable[[float], None]):
    with screen(io.StringIO(), terminal=True) as one:
        one.report("exact", 0, 40_000)
        assert shown(one) == ("exact", "", 40_000)
        clock(100.2)
        one.report("exact", 1_000, 40_000)
        assert shown(one)[1] == "1,000 of 40,000 rows"
        clock(102.0)
        one.report("exact", 10_000, 40_000)
        assert shown(one)[1] == "10,000 of 40,000 rows · 5,000 rows/s · 6.0 s left"
        clock(104.0)
        one.report("exact", 40_000, 40_000)
        assert shown(one)[1] == "40,000 of 40,000 rows · 10.0k rows/s"


def test_a_step_whose_rows_nobody_has_counted(clock: Callable[[float], None]):
    with screen(io.StringIO(), terminal=True) as one:
        one.report("read", 1_000, 0)
        clock(102.0)
        one.report("read", 4_000, 0)
        assert shown(one) == ("read", "4,000 rows · 2,000 rows/s", None)


def test_the_next_step_begins_anew(clock: Callable[[float], None]):
    with screen(io.StringIO(), terminal=True) as one:
        one.report("read", 1_000, 0)
        clock(110.0)
        one.report("repair", 1_000, 2_000)
        assert shown(one) == ("repair", "1,000 of 2,000 rows", 2_000)


def test_an_error_takes_the_line_away():
    file = io.StringIO()
    one = screen(file, terminal=True)

    def fail() -> None:
        with one:
            one.report("read", 1_000, 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert one._bar is not None
    assert not one._bar.live.is_started
    assert file.getvalue().endswith("\x1b[2K")


def test_the_name_of_a_step_is_no_markup():
    with screen(io.StringIO(), terminal=True) as one:
        one.report("[red]x[/nothing]", 1, 2)
        assert one._bar is not None
        one._bar.refresh()
