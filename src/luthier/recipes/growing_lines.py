"""A JSON-lines file that another process writes to: each look reads what is new, and no more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from luthier.core.errors import RunError

Record = Mapping[str, Any]


class GrowingLines:
    """The records of one file of a run, as far as its lines are whole.

    A file that has become shorter, or another under the same name, is read anew: a run that goes
    on from a checkpoint takes out what it will write again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget(None)

    def read(self) -> list[Record]:
        """Return all records so far; none where there is no file.

        Raises:
            RunError: A whole line is no record of a step.
        """
        try:
            with self._path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._identity or status.st_size < self._offset:
                    self._forget(identity)
                stream.seek(self._offset)
                whole, newline, _torn = stream.read().rpartition(b"\n")
        except FileNotFoundError:
            self._forget(None)
            return self._records
        for line in whole.split(b"\n") if newline else ():
            self._records.append(self._parse(line))
            self._offset += len(line) + len(newline)
        return self._records

    def _forget(self, identity: tuple[int, int] | None) -> None:
        self._identity = identity
        self._offset = 0
        self._records: list[Record] = []

    def _parse(self, line: bytes) -> Record:
        try:
            record: Any = orjson.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or "step" not in record:
            raise RunError(
                "this line is no record of a step",
                where=f"{self._path}:{len(self._records) + 1}",
                mend="Remove the line; nothing but what is shown of the run depends on it.",
            )
        return record
