"""One seed a run; every random choice derives its own from it by name."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed for one purpose, so that no two purposes share a random stream.

    Args:
        seed: The run's seed.
        purpose: What the stream is for, for example `("shuffle", epoch)`.

    Returns:
        An integer in [0, 2**31).
    """
    name = "\0".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1
