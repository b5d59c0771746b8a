"""`luthier prepare`: raw files in; out, rows worth training on, and why each other row left."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from luthier.cli.corpus_tables import print_drops, print_outcome, print_steps
from luthier.cli.prepare_screen import PrepareScreen
from luthier.cli.terminal import Stopped, console
from luthier.core.disk import disk_errors
from luthier.core.errors import SettingsError
from luthier.core.units import format_count

if TYPE_CHECKING:
    from luthier.recipes.config_flags import CommandLine
    from luthier.recipes.corpus import CorpusPlan, PreparedCorpus

_OPTIONS = ("out", "dry_run", "rows", "ray")
_DRY_ROWS = 2000


def run(args: Sequence[str]) -> None:
    """Clean, split and write a corpus, or with `--dry_run` say what would be dropped and why.

    Args:
        args: A settings file, or data files; settings; `--out FOLDER`; `--dry_run` with
            `--rows N`, how many rows of each source it looks at; `--ray [ADDRESS]`.

    Raises:
        LuthierError: Anything that the user can mend.
        SystemExit: Ctrl-C was pressed.
    """
    from luthier.recipes.config_flags import read_flags
    from luthier.recipes.corpus_command import resolve_prepare

    command = read_flags(_bare_dry_run(args), options=_OPTIONS, many_words=True)
    options = command.options
    num_rows = _rows(options)
    _refuse_misread(command)
    resolved = resolve_prepare(command)
    _refuse_no_data(resolved.plan)
    try:
        if num_rows is not None:
            _dry_run(resolved.plan, num_rows)
            return
        folder = _folder(options.get("out"), resolved.plan.preparation.corpus_dir)
        _prepare(resolved.plan, folder, options.get("ray"), resolved.num_workers, resolved.model)
    except KeyboardInterrupt:
        kept = "Finished steps are kept: the same command goes on from there."
        console.print(f"\nStopped. {kept if num_rows is None else 'Nothing was written.'}")
        raise Stopped from None


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

    scratch = Path(tempfile.gettempdir())
    full = disk_errors(scratch, "what the steps leave of the sample", "TMPDIR to a folder")
    with full, PrepareScreen(console) as screen:
        found = look_at_sample(plan, num_rows, screen.report)
    print_steps(console, found.steps)
    print_drops(console, found.samples)
    console.print(
        f"[dim]A look at the first {format_count(num_rows)} rows of each source; nothing was "
        "written. Duplicates of later rows don't show in it.[/]"
    )


def _say_where(prepared: PreparedCorpus) -> None:
    folder, typed = escape(str(prepared.folder)), escape(shlex.quote(str(prepared.folder)))
    found = " (it was there already)" if prepared.from_cache else ""
    console.print(f"[bold]{folder}[/]{found}", soft_wrap=True)
    console.print(f"  the data card: {folder}/data.html", soft_wrap=True)
    console.print(f"  look at rows:  luthier data show {typed}", soft_wrap=True)
    console.print(f"  train on it:   luthier train CONFIG --train_file {typed}", soft_wrap=True)


def _bare_dry_run(args: Sequence[str]) -> list[str]:
    """Give `--dry_run` its value: a file that stands behind it is none."""
    behind = [*args, ""][1:]
    return [
        "--dry_run=true" if word == "--dry_run" and after not in ("true", "false") else word
        for word, after in zip(args, behind, strict=True)
    ]


def _rows(options: Mapping[str, str | bool]) -> int | None:
    """Return how many rows a dry run looks at; None where it is none.

    Raises:
        SettingsError: The number is none, or no dry run is asked for.
    """
    dry, rows = options.get("dry_run", "false"), options.get("rows")
    if dry not in ("true", "false"):
        raise SettingsError(
            f"dry_run is {dry!r}, and can be true or false",
            where="--dry_run",
            mend="Give the bare flag.",
        )
    if dry == "false":
        if rows is not None:
            raise SettingsError(
                "rows is for a dry run, and a preparation takes all rows",
                where="--rows",
                mend="Add --dry_run, or name sources with num_samples to prepare a part of them.",
            )
        return None
    if rows is None:
        return _DRY_ROWS
    if isinstance(rows, str) and rows.isdecimal() and int(rows) > 0:
        return int(rows)
    raise SettingsError(
        "rows needs a number"
        if rows is True
        else f"rows is {rows!r}, and must be a whole number from 1 up",
        where="--rows",
        mend="Write --rows 1000.",
    )


def _refuse_misread(command: CommandLine) -> None:
    """Refuse a word that can't be meant as it is read.

    Raises:
        SettingsError: A flag with one dash, or a file where Ray's address is expected.
    """
    for word in command.words:
        if word.startswith("-"):
            raise SettingsError(
                f"{word} is no flag and no file",
                where="command line",
                mend="Flags begin with two dashes; a file of this name is ./" + word + ".",
            )
    ray = command.options.get("ray")
    if isinstance(ray, str) and Path(ray).exists():
        raise SettingsError(
            f"{ray} is read as the address of a cluster, and is a file or folder",
            where="--ray",
            mend="Write the files first and --ray last.",
        )


def _refuse_no_data(plan: CorpusPlan) -> None:
    data = plan.data
    if data.train_file is None and data.dataset is None and data.sources is None:
        raise SettingsError(
            "there is nothing to prepare",
            where="command line",
            mend="Name files, folders or hub names: luthier prepare raw/*.jsonl --out prepared.",
        )


def _folder(out: str | bool | None, default: str) -> Path:
    """Return the folder of the corpus.

    Raises:
        SettingsError: No folder is named, or the one that the user is in, which can't be replaced.
    """
    if out is True or out == "":
        raise SettingsError("--out needs a folder", where="--out", mend="Write --out FOLDER.")
    folder = Path(str(out or default)).expanduser()
    if Path.cwd().is_relative_to(folder.resolve()):
        raise SettingsError(
            f"the corpus would take the place of {folder}, and you are in it",
            where="--out" if out else "corpus_dir",
            mend="Name a folder of its own, for example --out prepared.",
        )
    return folder
