"""Content hashes: the same content gives the same name on any machine, in any process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20
_SAMPLE_BYTES = 4 << 20
_NUM_SAMPLES = 64


def hash_text(text: str) -> str:
    """Return the sha256 of a text's UTF-8 bytes, in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def hash_json(value: Any) -> str:
    """Return the sha256 of a JSON value, independent of the order of keys.

    Raises:
        TypeError: The value holds something that JSON can't.
    """
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hash_text(canonical)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in pieces.

    Raises:
        OSError: The file can't be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def hash_sampled(path: Path) -> str:
    """Return a sha256 of a file's size and of 64 pieces of 4 MiB, spread evenly over it.

    Up to 256 MiB that is all of it. Of larger files it is what tells one model from another in a
    fraction of a second; a change between the pieces does not show.

    Raises:
        OSError: The file can't be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    room = max(0, size - _SAMPLE_BYTES)
    starts = range(0, size, _SAMPLE_BYTES)
    if len(starts) > _NUM_SAMPLES:
        starts = [room * index // (_NUM_SAMPLES - 1) for index in range(_NUM_SAMPLES)]
    with path.open("rb") as stream:
        for start in starts:
            stream.seek(start)
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def hash_files(paths: Iterable[Path]) -> Mapping[str, str]:
    """Return `{file name: sha256}` of several files.

    Raises:
        ValueError: Two of them have the same name, so that one would hide the other.
    """
    hashes: dict[str, str] = {}
    for path in paths:
        if path.name in hashes:
            raise ValueError(f"two files are named {path.name}: their hashes need longer names")
        hashes[path.name] = hash_file(path)
    return hashes


def keyed_fraction(key: str, seed: int) -> float:
    """Map a key to [0, 1), evenly, and differently for each seed.

    A row's place in a split is decided by this number alone, so that it depends neither on the
    order of the rows nor on which other rows there are.
    """
    digest = hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
