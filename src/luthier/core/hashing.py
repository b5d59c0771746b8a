"""Content hashes: the same content gives the same name on any machine, in any process."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_CHUNK_BYTES = 1 << 20


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
