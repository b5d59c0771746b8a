"""`luthier lr-find`: which learning rates a run can learn at, drawn and said in one line."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from luthier.cli.curve import draw_curve
from luthier.cli.terminal import Stopped, console
from luthier.core.errors import SettingsError
from luthier.core.units import format_seconds
from luthier.recipes.config_flags import read_flags
from luthier.recipes.config_resolve import resolve_command

if TYPE_CHECKING:
    from luthier.recipes.lr_find import FoundRate

OPTIONS = ("min_lr", "max_lr", "num_steps")
LOWEST, HIGHEST = 1e-7, 1.0
FEWEST_STEPS = 10

_WIDTH = 60
_MARGIN = 10
"""Columns that `draw_curve` has left of the curve."""


def run(args: Sequence[str]) -> None:
    """Measure, draw the curve, and print the suggestion.

    Args:
        args: Settings; `--min_lr` (1e-7) and `--max_lr` (1) for the range; `--num_steps` for how
            many rates are tried in it (100, or one pass over fewer rows).

    Raises:
        LuthierError: As training itself would.
        Stopped: Ctrl-C ended the test; what was measured is shown and written all the same.
    """
    command = read_flags(args, options=OPTIONS)
    min_lr, max_lr, num_steps = read_range(command.options)
    resolved = resolve_command(command)
    from luthier.cli.display import TrainScreen
    from luthier.engine.interrupt import StopSignals
    from luthier.recipes.lr_find import find_learning_rate
    from luthier.recipes.quiet import quiet_libraries

    quiet_libraries()
    with (
        TrainScreen(console) as screen,
        StopSignals(lambda name: screen.say(_told_of(name))) as stop,
    ):
        found = find_learning_rate(
            resolved.config, screen, stop, min_lr=min_lr, max_lr=max_lr, num_steps=num_steps
        )
    print_found(found)
    if found.end == "stopped":
        raise Stopped


def read_range(options: Mapping[str, str | bool]) -> tuple[float, float, int | None]:
    """Return lowest rate, highest rate and steps (None: not given).

    Raises:
        SettingsError: One of them is no number, or makes no sense.
    """
    min_lr = _rate("min_lr", options.get("min_lr", str(LOWEST)))
    max_lr = _rate("max_lr", options.get("max_lr", str(HIGHEST)))
    if min_lr >= max_lr:
        raise SettingsError(
            f"min_lr is {min_lr:g}, and must be below max_lr, which is {max_lr:g}",
            where="--min_lr",
            mend=f"Leave both out, or write --min_lr {LOWEST:g} --max_lr {HIGHEST:g}.",
        )
    asked = options.get("num_steps")
    if asked is None:
        return min_lr, max_lr, None
    if isinstance(asked, bool) or not asked.isdecimal() or int(asked) < FEWEST_STEPS:
        raise SettingsError(
            f"num_steps is {asked!r}, and must be a whole number from {FEWEST_STEPS} on",
            where="--num_steps",
            mend="Leave it out, or write --num_steps 100.",
        )
    return min_lr, max_lr, int(asked)


def _told_of(signal_name: str) -> str:
    if signal_name == "SIGUSR1":
        return "SIGUSR1: a range test writes no checkpoint."
    return f"{signal_name}: the test ends after this micro-batch. Once more stops at once."


def _rate(name: str, value: str | bool) -> float:
    try:
        rate = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        rate = math.nan
    if math.isfinite(rate) and rate > 0:
        return rate
    raise SettingsError(
        f"{name} is {value!r}, and must be a number above 0",
        where=f"--{name}",
        mend=f"Write --{name} 1e-5, for example.",
    )


def print_found(found: FoundRate) -> None:
    """Print the curve, how sure it is, the suggestion with its line for the settings file."""
    from luthier.recipes.lr_find import JSON, PAGE
    from luthier.report.lr_page import shown

    if len(found.smoothed.losses) > 1:
        console.print(f"\n[bold]Loss[/] over the learning rate ({len(found.curve.losses)} steps)")
        for line in curve_lines(found):
            console.print(line, style="cyan", highlight=False)
    words, end = found.words()
    console.print(f"{escape(words)} [dim]{escape(end)}[/]", soft_wrap=True)
    suggestion = found.suggestion
    if suggestion.rate is not None:
        console.print(_choices(found))
        line = f"learning_rate: {shown(suggestion.rate)}"
        console.print(Text.assemble("\nfor the settings file   ", (line, "bold green")))
    for name in (JSON, PAGE):
        path = str(found.folder / name)
        console.print(f"  written {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"[dim]It took {format_seconds(found.seconds)}.[/]")


def _choices(found: FoundRate) -> Table:
    from luthier.report.lr_page import shown

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("read off the curve")
    table.add_column("learning rate", justify="right")
    for label, rate in found.labelled_rates():
        is_taken = rate == found.suggestion.rate
        table.add_row(label, shown(rate), style="bold" if is_taken else "dim")
    return table


def curve_lines(found: FoundRate) -> list[str]:
    """Draw the smoothed curve over the logarithm of the rate, its axis, and the suggestion.

    What lies far above the first loss is cut off: there is nothing to see in it.
    """
    rates, losses = found.smoothed.rates, found.smoothed.losses
    first, last = math.log(rates[0]), math.log(rates[-1])
    at = [math.exp(first + (last - first) * i / (_WIDTH - 1)) for i in range(_WIDTH)]
    low = min(losses)
    top = found.curve.start + max(found.curve.start - low, 0.05 * abs(found.curve.start))
    lines = draw_curve([min(top, _between(rates, losses, rate)) for rate in at], width=_WIDTH)
    marks = [" "] * _WIDTH
    if found.suggestion.rate is not None:
        share = (math.log(found.suggestion.rate) - first) / (last - first)
        marks[max(0, min(_WIDTH - 1, round(share * (_WIDTH - 1))))] = "▲"
    lines.append(" " * _MARGIN + "".join(marks).rstrip())
    ends = f"{rates[0]:.0e}", f"{math.sqrt(rates[0] * rates[-1]):.0e}", f"{rates[-1]:.0e}"
    left, middle, right = ends
    gap = (_WIDTH - len(left) - len(middle) - len(right)) // 2
    return [*lines, " " * _MARGIN + left + " " * gap + middle + " " * gap + right]


def _between(rates: Sequence[float], losses: Sequence[float], rate: float) -> float:
    right = min(max(bisect_left(rates, rate), 1), len(rates) - 1)
    low, high = math.log(rates[right - 1]), math.log(rates[right])
    share = min(1.0, max(0.0, (math.log(rate) - low) / (high - low)))
    return losses[right - 1] + share * (losses[right] - losses[right - 1])
