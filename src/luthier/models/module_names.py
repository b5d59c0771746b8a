"""Names of modules as settings give them, held against the names that a model has."""

from __future__ import annotations

import re
from collections.abc import Iterable

from luthier.core.errors import SettingsError, nearest


def check_modules(setting: str, names: Iterable[str], paths: set[str], kind: str) -> None:
    """Refuse names that stand for nothing.

    Args:
        setting: Where the names come from.
        names: Of modules: their last names, or as much of their paths as is given.
        paths: All that could be meant.
        kind: What it is, for the message.

    Raises:
        SettingsError: A name stands for none of the paths.
    """
    for name in names:
        if any(is_named(path, name) for path in paths):
            continue
        known = sorted({last for path in paths if not (last := path.split(".")[-1]).isdigit()})
        close = nearest(name.split(".")[-1], known)
        raise SettingsError(
            f"{setting} names {name}, and this model has no such {kind}",
            mend=(f"Did you mean {close}? " if close else "") + f"It has: {', '.join(known)}.",
        )


def is_named(path: str, name: str) -> bool:
    """Whether a name stands for a path, as peft matches them: the end of it, whole parts alone."""
    return path == name or path.endswith(f".{name}")


def layer_number(name: str) -> int | None:
    """Return the number of the layer that a parameter's name puts it in, counted from 0."""
    found = re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", name)
    return int(found.group(1)) if found else None
