"""What the tests of the readers share: bytes packed by the tools that users have."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import pytest

Pack = Callable[[bytes, str], bytes]


@pytest.fixture
def pack() -> Pack:
    """Compress bytes as the suffix says (.gz, .zst, in any case)."""

    def run(data: bytes, suffix: str) -> bytes:
        if suffix.lower() == ".gz":
            return gzip.compress(data)
        zstandard = pytest.importorskip("zstandard")
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)

    return run
