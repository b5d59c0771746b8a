"""`luthier chat`: a conversation in the terminal, or one answer a line where input is piped."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from luthier.cli.terminal import console, error_console, print_error
from luthier.core.errors import DataError, LuthierError, did_you_mean

if TYPE_CHECKING:
    from luthier.evaluation.generation import Answer
    from luthier.recipes.chat_session import ChatSession

COMMANDS = {
    "/new": "forget the conversation and begin another",
    "/system": "TEXT sets the system prompt and begins anew; alone it shows it",
    "/regen": "answer the last question again",
    "/exit": "end; so does Ctrl-D",
    "/help": "list the commands",
}

# One word of letters, so that a question about /etc/hosts stays a question.
_COMMAND = re.compile(r"(/[a-z]+)(?:\s+(.*))?", re.IGNORECASE | re.DOTALL)

# What moves the cursor or worse is shown, not done: a model may write anything.
_CONTROL_PICTURES = {
    **{code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"},
    **dict.fromkeys(range(0x7F, 0xA0), "\ufffd"),
}


def run(
    model: str,
    *,
    system: str | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
) -> None:
    """Talk to a model until the input ends.

    Raises:
        LuthierError: The settings or the model won't do.
    """
    from luthier.evaluation.settings import generation_settings

    settings = generation_settings(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p
    )
    from luthier.recipes.quiet import quiet_libraries

    interactive = sys.stdin.isatty() and console.is_terminal
    if interactive:
        console.print(f"Loading {model}", style="dim", markup=False, soft_wrap=True)
    quiet_libraries()
    from luthier.recipes.answering import load_answering_model
    from luthier.recipes.chat_session import ChatSession

    answering = load_answering_model(model)
    session = ChatSession(answering, settings, system)
    if interactive:
        console.print(answering.description, style="dim", markup=False, soft_wrap=True)
        hint = "/help lists the commands. Ctrl-C stops an answer, Ctrl-D ends.\n"
        console.print(hint, style="dim", markup=False)
        _use_line_editing()
    ChatLoop(session, interactive).run()


class ChatLoop:
    """Reads lines, carries out commands, and shows answers as they are written."""

    def __init__(self, session: ChatSession, interactive: bool) -> None:
        """Remember whom to talk to.

        Args:
            session: The conversation.
            interactive: Whether somebody sits at a terminal: prompts, colours and rates are shown.
        """
        self._session = session
        self._interactive = interactive
        self._actions: dict[str, Callable[[str], None]] = {
            "/new": self._forget,
            "/system": self._set_system,
            "/regen": self._regenerate,
            "/help": self._help,
        }

    def run(self) -> None:
        """Go on until the input ends or /exit.

        Raises:
            DataError: Piped input is not UTF-8.
        """
        if not self._interactive and isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="strict")
        while (line := self._read()) is not None:
            text = line.strip()
            if text.lower() == "/exit":
                return
            if text:
                self._take(text)

    def _read(self) -> str | None:
        try:
            return input(_prompt()) if self._interactive else sys.stdin.readline() or None
        except EOFError:
            console.print()
            return None
        except KeyboardInterrupt:
            if not self._interactive:
                raise
            console.print("\nCtrl-D or /exit ends.", style="dim")
            return ""
        except UnicodeDecodeError as error:
            raise DataError(
                f"the input is not UTF-8 text: {error}",
                where="standard input",
                mend="Convert it: iconv -f ITS_ENCODING -t utf-8",
            ) from None

    def _take(self, text: str) -> None:
        found = _COMMAND.fullmatch(text)
        try:
            if found is None:
                self._show(lambda on_text: self._session.ask(text, on_text))
            elif (action := self._actions.get(found.group(1).lower())) is not None:
                action((found.group(2) or "").strip())
            else:
                mend = did_you_mean(found.group(1), COMMANDS)
                error_console.print(f"No such command: {found.group(1)}. {mend}", markup=False)
        except LuthierError as error:
            # A conversation that is too long is no reason to end it.
            if not self._interactive:
                raise
            print_error(error)

    def _show(self, answer_with: Callable[[Callable[[str], None]], Answer | None]) -> None:
        if self._interactive:
            console.print()
        started_s = time.perf_counter()
        answer = answer_with(self._write)
        if answer is None:
            error_console.print("Nothing has been asked yet.", markup=False)
            return
        self._write("\n")
        if self._interactive:
            console.print(_figures(answer, time.perf_counter() - started_s), style="dim")
            console.print()

    def _write(self, piece: str) -> None:
        # Past rich, which would turn tabs into spaces.
        console.file.write(piece.translate(_CONTROL_PICTURES) if console.is_terminal else piece)
        console.file.flush()

    def _note(self, text: str) -> None:
        if self._interactive:
            console.print(text, style="dim", markup=False)

    def _forget(self, _: str) -> None:
        self._session.forget()
        self._note("Forgotten.")

    def _set_system(self, text: str) -> None:
        if text:
            self._session.system = text
            self._session.forget()
            self._note("System prompt set, conversation forgotten.")
        else:
            shown = self._session.system or "none beside the model's own"
            console.print(f"System prompt: {shown}", markup=False)

    def _regenerate(self, _: str) -> None:
        self._show(self._session.retry)

    def _help(self, _: str) -> None:
        for name, purpose in COMMANDS.items():
            console.print(f"  {name:<9}{purpose}", markup=False)


def _figures(answer: Answer, seconds: float) -> str:
    rate = answer.num_tokens / seconds if seconds else 0.0
    text = f"{answer.num_tokens} tokens, {rate:.1f} tokens/s"
    if answer.finish_reason == "length":
        text += ", cut at the longest length: --max_new_tokens"
    return f"{text}, stopped" if answer.finish_reason == "interrupted" else text


def _prompt() -> str:
    if console.color_system is None:
        return "you> "
    # \001 and \002 keep readline from counting the colour as width.
    return "\001\033[1;36m\002you> \001\033[0m\002"


def _use_line_editing() -> None:
    """Give `input` a history and arrow keys, where Python has readline."""
    try:
        import readline
    except ImportError:
        return
    readline.set_auto_history(True)
