"""The terminal: one console for output, one for errors, and how an error is drawn."""

from __future__ import annotations

import os
import sys

from rich.console import Console
from rich.text import Text

from luthier.core.errors import LuthierError
from luthier.core.exit_codes import INTERRUPTED
from luthier.core.secrets import redact

# A pipe or a file has no width: lines are kept whole there instead of being folded at 80.
_PIPE_WIDTH = 160
_width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH

console = Console(highlight=False, width=_width)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


class Stopped(SystemExit):
    """Ctrl-C ended a command, and the command has said what that means."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED)


def print_error(error: LuthierError) -> None:
    """Print what is wrong, where, and what to do, each in its own colour; secrets are hidden."""
    text = Text("error: ", style="bold red")
    if error.where:
        text.append(f"{redact(error.where)}: ", style="cyan")
    text.append(redact(error.problem), style="default")
    if error.mend:
        text.append(f"\n  {redact(error.mend)}", style="green")
    error_console.print(text)


def on_one_line(text: str, most_chars: int) -> str:
    """Return a text without its line ends, and dots where it is longer than that."""
    line = " ".join(text.split())
    return line if len(line) <= most_chars else f"{line[:most_chars]}..."
