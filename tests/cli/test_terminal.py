from __future__ import annotations

from luthier.cli import terminal
from luthier.cli.terminal import on_one_line
from luthier.core.errors import DataError


def test_an_error_says_where_what_and_the_mend(capture):
    shown = capture(terminal, "error_console")
    terminal.print_error(DataError("no [field] x", where="a.jsonl:3", mend="Add [x]."))
    assert shown.getvalue() == "error: a.jsonl:3: no [field] x\n  Add [x].\n"


def test_an_error_without_place_and_mend_is_one_line(capture):
    shown = capture(terminal, "error_console")
    terminal.print_error(DataError("broken"))
    assert shown.getvalue() == "error: broken\n"


def test_errors_go_to_standard_error():
    assert terminal.error_console.stderr
    assert not terminal.console.stderr


def test_an_error_shows_no_secret(capture, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "s3cr3t-value")
    shown = capture(terminal, "error_console")
    words = ("http://a:b@c", "s3cr3t-value")
    terminal.print_error(DataError(words[0], where=words[1], mend=f"Try {words[1]}."))
    assert shown.getvalue() == "error: ***: http://***@c\n  Try ***.\n"


def test_a_long_text_is_cut_on_one_line():
    assert on_one_line("a\n b\tc", 5) == "a b c"
    assert on_one_line("abcdef", 5) == "abcde..."
