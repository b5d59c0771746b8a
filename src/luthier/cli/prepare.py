"""`luthier prepare`: raw files in; out, rows worth training on, and why each other row left."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from luthier.cli.corpus_tables import print_drops, print_outcome, print_steps
from luthier.cli.prepare_screen import PrepareScreen
from luthier.cli.terminal import console
from luthier.core.errors import SettingsError
from luthier.core.units import format_count

if TYPE_CHECKING:
    from luthier.recipes.corpus import CorpusPlan, PreparedCorpus

INTERRUPTED = 130
_OPTIONS = ("out", "dry_run", "rows", "ray")
_DRY_ROWS = 2000


def run(args: Sequence[str]) -> None:
    """Clean, split and write a corpus, or with `--dry_run` say what would be dropped and why.

    Args:
        args: A settings file, or data files; settings; `--out FOLDER`; `--dry_run` with
            `--rows N`, how many rows of each source it looks at; `--ray [ADDRESS]`.

    Raises:
        LuthierError: Anything that the user can mend.
    """
    from luthier.recipes.config_flags import read_flags
    from luthier.recipes.corpus_command import resolve_prepare

    command = read_flags(args, options=_OPTIONS, many_words=True)
    resolved = resolve_prepare(command)
    options = command.options
    out = options.get("out")
    if out is True:
        raise SettingsError("--out needs a folder", where="--out", mend="Write --out FOLDER.")
    try:
        if options.get("dry_run"):
            _dry_run(resolved.plan, _number(options.get("rows", str(_DRY_ROWS))))
            return
        folder = Path(str(out) if out else resolved.plan.preparation.corpus_dir).expanduser()
        _prepare(resolved.plan, folder, options.get("ray"), resolved.num_workers, resolved.model)
    except KeyboardInterrupt:
        console.print("\nStopped. Finished steps are kept: the same command goes on from there.")
        sys.exit(INTERRUPTED)


def _prepare(
    plan: CorpusPlan, folder: Path, ray: str | bool | None, num_workers: int | None, model: str
) -> None:
    from luthier.recipes.corpus import prepare_corpus
    from luthier.recipes.corpus_command import choose_runner, with_token_rate

    with PrepareScreen(console) as screen:
        plan = with_token_rate(plan, model, screen.report)
        runner = choose_runner(plan, num_workers, ray)
        prepared = prepare_corpus(plan, folder, runner, screen.report)
    print_steps(console, prepared.manifest["steps"])
    print_outcome(console, prepared.manifest)
    _say_where(prepared)


def _dry_run(plan: CorpusPlan, num_rows: int) -> None:
    from luthier.recipes.corpus_command import look_at_sample

    with PrepareScreen(console) as screen:
        found = look_at_sample(plan, num_rows, screen.report)
    print_steps(console, found.steps)
    print_drops(console, found.samples)
    console.print(
        f"[dim]A look at the first {format_count(num_rows)} rows of each source; nothing was "
        "written. Duplicates of later rows don't show in it.[/]"
    )


def _say_where(prepared: PreparedCorpus) -> None:
    folder = escape(str(prepared.folder))
    found = " (it was there already)" if prepared.from_cache else ""
    console.print(f"[bold]{folder}[/]{found}", soft_wrap=True)
    console.print(f"  the data card: {folder}/data.html", soft_wrap=True)
    console.print(f"  look at rows:  luthier data show {folder}", soft_wrap=True)
    console.print(f"  train on it:   luthier train CONFIG --train_file {folder}", soft_wrap=True)


def _number(value: str | bool) -> int:
    if isinstance(value, str) and value.isdigit() and int(value) > 0:
        return int(value)
    raise SettingsError(
        f"rows is {value!r}, and must be a whole number from 1 up",
        where="--rows",
        mend="Write --rows 1000.",
    )
