"""Where luthier keeps what it can make again: prepared data, converted models."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return a folder below `$LUTHIER_CACHE`, or `~/.cache/luthier` where that is not set.

    Args:
        name: What is kept there, for example `prepared`. The folder need not exist.
    """
    root = os.environ.get("LUTHIER_CACHE")
    base = Path(root) if root else Path.home() / ".cache" / "luthier"
    return base.expanduser() / name
