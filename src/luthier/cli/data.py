"""`luthier data`: look at a prepared corpus, row by row, and at what was dropped from it."""

from __future__ import annotations

from pathlib import Path

from luthier.cli.corpus_tables import panel, print_drop, print_outcome, print_steps
from luthier.cli.terminal import console


def show(folder: str, *, dropped: str | None, side: str, num_rows: int, seed: int) -> None:
    """Print rows of a corpus, drawn by seed.

    Args:
        folder: What `luthier prepare` wrote.
        dropped: A reason: show dropped rows beside what they duplicate; `all` for any reason.
        side: `train` or `val`.
        num_rows: How many.
        seed: Another seed shows other rows.

    Raises:
        DataError: The folder is no prepared corpus, was changed, or holds no such rows.
    """
    from luthier.recipes.corpus_rows import dropped_rows, kept_rows

    if dropped is not None:
        for row in dropped_rows(Path(folder), dropped, num_rows, seed):
            print_drop(console, row)
        return
    for row in kept_rows(Path(folder), side, num_rows, seed):
        title = f"{row['id']}  {row['origin']}"
        console.print(panel(row["text"], title, "dim"))


def verify(folder: str) -> None:
    """Print the account of a corpus, once each of its files is found to be what it was.

    Raises:
        DataError: The folder is no prepared corpus, or a file is missing or was changed.
    """
    from luthier.corpus.folder import check_file, read_manifest

    manifest = read_manifest(Path(folder))
    for name, listed in manifest["files"].items():
        check_file(Path(folder), name, listed)
    print_steps(console, manifest["steps"])
    print_outcome(console, manifest)
    console.print(f"[green]whole[/] {len(manifest['files'])} files are as they were written")
