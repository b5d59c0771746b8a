from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from luthier.cli import chat
from luthier.core.errors import DataError, ModelError, SettingsError
from luthier.evaluation.generation import Answer


class FakeSession:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, *pieces: str, finish: Any = "stop") -> None:
        self.pieces = pieces or ("Hel", "lo.")
        self.finish = finish
        self.asked: list[str] = []
        self.system: str | None = None
        self.forgot = 0

    def ask(self, text, on_text):
        self.asked.append(text)
        if text == "too long":
            raise DataError("the prompt has 9 tokens", mend="/new forgets.")
        for piece in self.pieces:
            on_text(piece)
        return Answer("".join(self.pieces), len(self.pieces), self.finish)

    def retry(self, on_text):
        return self.ask("retry", on_text) if self.asked else None

    def forget(self):
        self.forgot += 1


@pytest.fixture
def talk(capture, monkeypatch):
    """Run a loop over lines of input; return what stands on the screen and on the error console."""

    def run(session, *lines, interactive=False):
        shown = capture(chat, terminal=interactive)
        errors = capture(chat, "error_console")
        monkeypatch.setattr("luthier.cli.terminal.error_console", chat.error_console)
        given = iter(lines)

        def read(_prompt=""):
            line = next(given, None)
            if line is None:
                raise EOFError
            if line == "^C":
                raise KeyboardInterrupt
            return line

        monkeypatch.setattr("builtins.input", read)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat.ChatLoop(session, interactive).run()
        return shown.getvalue(), errors.getvalue()

    return run


def test_piped_lines_get_plain_answers(talk):
    session = FakeSession()
    assert talk(session, "one", "", "  two  ") == ("Hello.\nHello.\n", "")
    assert session.asked == ["one", "two"]


def test_at_a_terminal_the_figures_follow(talk):
    shown, _ = talk(FakeSession(), "one", interactive=True)
    assert "Hello.\n2 tokens, " in shown
    assert " tokens/s\n" in shown


@pytest.mark.parametrize(
    ("finish", "words"), [("length", "--max_new_tokens"), ("interrupted", ", stopped")]
)
def test_an_answer_that_did_not_end_by_itself_says_so(talk, finish, words):
    shown, _ = talk(FakeSession(finish=finish), "one", interactive=True)
    assert words in shown


@pytest.mark.parametrize("interactive", [False, True])
def test_exit_ends_and_later_lines_are_not_read(talk, interactive):
    session = FakeSession()
    talk(session, "one", "/exit", "two", interactive=interactive)
    assert session.asked == ["one"]


def test_commands_reach_the_session(talk):
    session = FakeSession()
    shown, _ = talk(session, "/system Be brief.", "/system", "one", "/regen", "/NEW", "/help")
    assert session.system == "Be brief."
    assert session.asked == ["one", "retry"]
    assert session.forgot == 2
    assert "System prompt: Be brief." in shown
    assert all(name in shown for name in chat.COMMANDS)


def test_regen_before_the_first_question_says_so(talk):
    assert talk(FakeSession(), "/regen") == ("", "Nothing has been asked yet.\n")


def test_an_unknown_command_names_the_nearest(talk):
    session = FakeSession()
    shown, errors = talk(session, "/regn")
    assert errors == "No such command: /regn. Did you mean /regen?\n"
    assert shown == ""
    assert session.asked == []


def test_a_path_is_no_command(talk):
    session = FakeSession()
    talk(session, "/etc/hosts: what is it?")
    assert session.asked == ["/etc/hosts: what is it?"]


def test_a_conversation_that_is_too_long_goes_on_at_a_terminal_and_ends_a_pipe(talk):
    session = FakeSession()
    _, errors = talk(session, "too long", "one", interactive=True)
    assert "error: the prompt has 9 tokens" in errors
    assert session.asked == ["too long", "one"]
    with pytest.raises(DataError, match="the prompt has 9 tokens"):
        talk(session, "too long", "one")


def test_ctrl_c_at_the_prompt_says_how_to_end(talk):
    session = FakeSession()
    shown, _ = talk(session, "^C", "one", interactive=True)
    assert "Ctrl-D or /exit ends." in shown
    assert session.asked == ["one"]


def test_control_characters_of_an_answer_are_shown_not_done(talk):
    session = FakeSession("red\x1b[2J\r\n", "\t琴\x9b1m\x7f")
    shown, _ = talk(session, "one", interactive=True)
    assert "red␛[2J␍\n\t琴\ufffd1m\ufffd\n" in shown


def test_a_pipe_gets_an_answer_as_it_is(talk):
    assert talk(FakeSession("a\tb\r\n", "[bold]\x1b"), "one")[0] == "a\tb\r\n[bold]\x1b\n"


def test_input_that_is_not_utf8_is_refused(monkeypatch, capture):
    capture(chat)
    session: Any = FakeSession()
    bytes_in = io.TextIOWrapper(io.BytesIO("琴\n".encode("gbk")), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", bytes_in)
    with pytest.raises(DataError, match="the input is not UTF-8 text") as caught:
        chat.ChatLoop(session, interactive=False).run()
    assert "iconv" in str(caught.value.mend)


def test_the_prompt_is_coloured_only_where_there_is_colour(capture):
    capture(chat)
    assert chat._prompt() == "you> "
    chat.console._color_system = chat.console._color_system or _standard_colours()
    assert "\001\033[1;36m\002you> " in chat._prompt()


def _standard_colours():
    from rich.color import ColorSystem

    return ColorSystem.STANDARD


def test_wrong_settings_and_models_are_refused(tmp_path):
    values: Any = {"system": None, "max_new_tokens": 5}
    with pytest.raises(SettingsError, match="temperature is 11"):
        chat.run("x", **values, temperature=11.0)
    with pytest.raises(ModelError, match="no such model folder"):
        chat.run(str(tmp_path / "none"), **values, temperature=0.0)


def test_the_whole_command_answers_a_pipe(tiny_llama, monkeypatch, capture):
    shown = capture(chat)
    text = io.TextIOWrapper(io.BytesIO("Name a colour.\n琴？\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", text)
    chat.run(str(tiny_llama()), system="Be brief.", max_new_tokens=4, temperature=0.0)
    assert shown.getvalue().endswith("\n")
    assert "tokens/s" not in shown.getvalue()
