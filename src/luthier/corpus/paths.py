"""What a user names as data, as a list of files.

In: a path, a pattern or a folder. Out: the files, in an order that is the same on each machine.
A name that leads nowhere is answered with the nearest name that exists.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

from luthier.core.errors import DataError, nearest
from luthier.corpus.readers.dispatch import KNOWN_KINDS, check_kind, is_data_file

_NOT_DATA = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json"}
    | {"readme.txt", "license.txt", "licence.txt", "notice.txt", "requirements.txt"}
)
"""Files, in small letters, that lie beside data and describe it: only by their own path are they
read."""


def is_pattern(text: str) -> bool:
    """Return whether a text is a pattern (`data/*.jsonl`) and not the name of something there."""
    return glob.has_magic(text) and not Path(text).exists()


def expand(text: str) -> list[Path]:
    """Return the files that a path, a pattern or a folder stands for.

    Args:
        text: As the user wrote it; relative to the working folder.

    Returns:
        One file or more, sorted by path. A folder is searched to any depth for the kinds of
        files that can be read; hidden files and folders are passed over, and files that
        describe data (dataset_info.json, README.txt, LICENSE.txt).

    Raises:
        DataError: There is no such path, no file matches, or a file is of an unknown kind.
    """
    path = Path(text).expanduser()
    if is_pattern(str(path)):
        return _matches(str(path))
    if path.is_dir():
        return files_in(path)
    if not path.exists():
        raise missing_path(path)
    check_kind(path)
    return [path]


def _matches(pattern: str) -> list[Path]:
    found = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    files = [path for path in found if not path.is_dir()]
    if not files:
        raise DataError(
            "no file matches this pattern",
            where=pattern,
            mend="Check it with ls; * stands for one level, ** for any depth.",
        )
    for path in files:
        check_kind(path)
    return files


def files_in(folder: Path) -> list[Path]:
    """Return the data files of a folder and its subfolders, sorted by path.

    Raises:
        DataError: There is none, or a folder can't be read.
    """
    found: list[Path] = []
    for here, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(
            Path(here, name)
            for name in names
            if not name.startswith(".")
            and name.lower() not in _NOT_DATA
            and is_data_file(Path(name))
        )
    if found:
        return sorted(found, key=lambda path: path.relative_to(folder).parts)
    if (folder / "state.json").exists() or any(folder.rglob("*.arrow")):
        raise DataError(
            "this folder was written by save_to_disk, which luthier does not read",
            where=str(folder),
            mend="Write the data set as parquet: datasets.load_from_disk(...).to_parquet(...).",
        )
    raise DataError(
        "the folder holds no data file",
        where=str(folder),
        mend=f"Known kinds: {KNOWN_KINDS}.",
    )


def _unreadable(error: OSError) -> None:
    raise DataError(
        f"the folder can't be read: {error.strerror}",
        where=str(error.filename),
        mend="Check its permissions.",
    ) from error


def missing_path(path: Path, where: str | None = None) -> DataError:
    """Build the error for a path that leads nowhere.

    Args:
        path: The path.
        where: What names the path, where that is not the path itself.
    """
    if path.is_symlink():
        return DataError(
            f"this is a link to {path.readlink()}, which is not there",
            where=where or str(path),
            mend="Mend the link, or name the file that is meant.",
        )
    there = path.parent
    missing = path.name
    while not there.is_dir() and there != there.parent:
        there, missing = there.parent, there.name
    what = f"no such file or folder: {path}"
    if there != path.parent:
        what += f" (there is no {there / missing})"
    names = [entry.name for entry in there.iterdir()] if there.is_dir() else []
    close = nearest(missing, names)
    if close is not None:
        mend = f"Did you mean {there / close}?"
    elif data := sorted(name for name in names if is_data_file(Path(name)))[:5]:
        mend = f"In {there} there are: {', '.join(data)}."
    else:
        mend = f"Check the path; it is relative to {Path.cwd()}."
    return DataError(what, where=where, mend=mend)


def inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file that a data file names, if it lies in the folder that it may name.

    Links are followed first: what counts is where the bytes are.

    Args:
        folder: The folder that must hold the file.
        name: The path that the data file gives, relative to the folder.
        where: File and line of the data file.

    Raises:
        DataError: The path leads out of the folder, or is a link in a circle.
    """
    path = folder / name
    try:
        is_inside = "\0" not in name and path.resolve().is_relative_to(folder.resolve())
    except RuntimeError as error:  # what pathlib makes of a circle
        raise missing_path(path, where) from error
    if not is_inside:
        raise DataError(
            f"the path {name!r} leads out of the folder {folder}",
            where=where,
            mend="Put the file into that folder, or name it by train_file.",
        )
    return path
