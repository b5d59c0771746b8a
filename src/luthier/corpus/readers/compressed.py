"""Compressed data files: the bytes inside, unpacked as they are read.

In: a path. Out: a stream of its bytes, unpacked where the name ends in .gz or .zst. Refuses data
that isn't packed as its name says, that is damaged or cut off, or that grows beyond all measure.
zstandard's own stream takes a cut file for a whole one: here each frame must reach its end.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from luthier.core.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RATIO = 500
"""Rows that look alike pack 20 to 50 times, copies of them some 200 times; gzip ends at 1,032."""
FREE_BYTES = 256 << 20
"""What a file may grow to whatever its ratio: a small file of copies does no harm."""
_FEED_BYTES = 1 << 11
"""Packed bytes unpacked at a time. Four of zstd's can make 128 KiB, so this much makes 64 MiB."""
_BUFFER_BYTES = 1 << 17


class _Member(Protocol):
    """One gzip member or zstd frame; a file may hold several, one after another."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Packing:
    name: str
    mark: re.Pattern[bytes]
    padding: bytes = b""
    """Bytes that may stand behind a member: tapes and block devices fill gzip files with zeros."""


_PACKINGS = {
    ".gz": _Packing("gzip", re.compile(rb"\x1f\x8b"), b"\0"),
    # The second mark is that of a frame to skip, with which pzstd begins a file.
    ".zst": _Packing("zstd", re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18")),
}
PACKED_SUFFIXES = tuple(_PACKINGS)


def split_suffix(path: Path) -> tuple[str, str]:
    """Return what a file holds and how it is packed, by its name: ('.jsonl', '.gz').

    Both are in small letters, and empty where the name says nothing.
    """
    packing = path.suffix.lower()
    if packing not in _PACKINGS:
        return packing, ""
    return Path(path.stem).suffix.lower(), packing


def open_unpacked(path: Path) -> BinaryIO:
    """Open an ordinary file for reading the bytes that it holds when unpacked.

    Raises:
        OSError: The file can't be opened.
        DataError: It is not packed in the way that its name says. Damage is found while reading.
        MissingExtraError: The file is .zst, and zstandard is not installed.
    """
    _, suffix = split_suffix(path)
    stream = path.open("rb")
    if not suffix:
        return stream
    try:
        _check_mark(path, stream.peek(4)[:4], suffix)
        new_member, failure = _zstd() if suffix == ".zst" else (_gzip_member, zlib.error)
    except (DataError, MissingExtraError):
        stream.close()
        raise
    packing = _PACKINGS[suffix]
    return io.BufferedReader(_Unpacked(path, stream, packing, new_member, failure), _BUFFER_BYTES)


def _check_mark(path: Path, head: bytes, suffix: str) -> None:
    if _PACKINGS[suffix].mark.match(head):
        return
    name = _PACKINGS[suffix].name
    mend = f"Name it by what it holds, without {suffix}; or write or download it again."
    for other, packing in _PACKINGS.items():
        if packing.mark.match(head):
            mend = f"It is {packing.name}: let its name end in {other}."
    raise DataError(
        f"the file is not {name}, though its name ends in {suffix}", where=str(path), mend=mend
    )


def _gzip_member() -> _Member:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _zstd() -> tuple[Callable[[], _Member], type[Exception]]:
    """Return what unpacks one zstd frame, and the error with which it says that it can't."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError.of("zstandard", "corpus", "reading .zst files") from error
    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError


class _Unpacked(io.RawIOBase):
    """The unpacked bytes, as a raw stream for `io.BufferedReader`."""

    def __init__(
        self,
        path: Path,
        packed: BinaryIO,
        packing: _Packing,
        new_member: Callable[[], _Member],
        failure: type[Exception],
    ) -> None:
        self._path = path
        self._packed = packed
        self._packing = packing
        self._new_member = new_member
        self._failure = failure
        self._member: _Member | None = None
        self._pending = memoryview(b"")
        self._num_packed = self._num_unpacked = 0
        self._line = 1

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._packed.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer as far as is at hand; 0 at the end of the file."""
        while not self._pending:
            data = self._packed.read(_FEED_BYTES)
            if not data:
                self._check_end()
                return 0
            self._pending = memoryview(self._unpack(data))
            self._check_growth(len(data))
        into = memoryview(buffer)
        part = self._pending[: len(into)]
        into[: len(part)] = part
        self._pending = self._pending[len(part) :]
        self._line += bytes(part).count(b"\n")
        return len(part)

    def _unpack(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        while data:
            if self._member is None:
                data = data.lstrip(self._packing.padding)
                if not data:
                    break
                self._member = self._new_member()
            try:
                parts.append(self._member.decompress(data))
            except self._failure as error:
                raise self._error(f"is damaged here or close behind: {error}") from error
            data = self._member.unused_data if self._member.eof else b""
            if self._member.eof:
                self._member = None
        return b"".join(parts)

    def _check_end(self) -> None:
        if self._member is not None:
            raise self._error("ends early: the file was cut off")

    def _check_growth(self, num_packed: int) -> None:
        self._num_packed += num_packed
        self._num_unpacked += len(self._pending)
        allowed = max(FREE_BYTES, MAX_RATIO * self._num_packed)
        if self._num_unpacked > allowed:
            raise DataError(
                f"{self._num_packed:,} packed bytes have become {self._num_unpacked:,}: more than "
                f"{MAX_RATIO} times as many, as in a file made to fill a disk",
                where=f"{self._path}:{self._line}",
                mend="If you trust the file, unpack it and name the unpacked file.",
            )

    def _error(self, what: str) -> DataError:
        name = self._packing.name
        return DataError(
            f"the {name} data {what}",
            where=f"{self._path}:{self._line}",
            mend=f"Write or download the file again; {name} -t tests it.",
        )
