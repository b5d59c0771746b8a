"""Names of sources: short, each one's own, and the same wherever the folder lies.

In: the paths of a run's files. Out: for each the shortest end of its path that no other file has.
Two sources of one name are refused: their rows would have the same ids.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from luthier.core.errors import SettingsError
from luthier.corpus.readers.source import Source


def short_names(paths: Sequence[Path], others: Iterable[Path] = ()) -> list[str]:
    """Return for each path its shortest end that none of the others has.

    Args:
        paths: Files; the same one may stand twice.
        others: Files that have names already, and whose names are not to be taken.
    """
    parts = [_parts(path) for path in paths]
    rest = {*parts, *map(_parts, others)}
    names: dict[tuple[str, ...], str] = {}
    length = 1
    while len(names) < len(set(parts)):
        ends = Counter(path[-length:] for path in rest)
        for path in parts:
            if path not in names and (ends[path[-length:]] == 1 or length >= len(path)):
                names[path] = Path(*path[-length:]).as_posix()
        length += 1
    return [names[path] for path in parts]


def refuse_equal_names(sources: Sequence[Source]) -> None:
    """Refuse two sources whose rows would have the same ids.

    Raises:
        SettingsError: There are two.
    """
    first: dict[str, Source] = {}
    for source in sources:
        other = first.setdefault(source.key, source)
        if other is not source:
            raise SettingsError(
                f"two sources are named {source.key!r}: {_place(other)} and {_place(source)}",
                where="sources",
                mend="Give one of them another name: name it by `name` under sources.",
            )


def _parts(path: Path) -> tuple[str, ...]:
    # Not resolved: a link has the name that its user gave it.
    return Path(os.path.normpath(path.absolute())).parts


def _place(source: Source) -> str:
    if source.path is not None:
        return str(source.path)
    return " ".join(part for part in (source.hub, source.subset, source.folder) if part)
