"""A plain text file for pre-training: each line is a document.

In: a .txt file. Out: `{"text": ...}` for each line that isn't blank, as `datasets` and
LLaMA-Factory read such files, with the line it stands on. A document that spans several lines
can't be told from several documents: it belongs in a jsonl file, under the field `text`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from luthier.contracts.conversation import Origin
from luthier.core.errors import DataError
from luthier.corpus.bad_rows import OnBadRow, RowError
from luthier.corpus.readers.raw_file import decode_line, empty_error, lines_of, open_data_file


def read_text_lines(path: Path, on_bad_row: OnBadRow) -> Iterator[tuple[Origin, dict[str, Any]]]:
    r"""Yield the text of each line that isn't blank, without its line end.

    Only \n and \r\n end a line: other signs that Unicode calls line ends belong to the text.

    Args:
        path: The file.
        on_bad_row: Called with each line that holds zero bytes or ends in half a character.

    Raises:
        DataError: The file can't be read, is not UTF-8, has a line without end or bare carriage
            returns for line ends, or holds nothing but blank lines.
    """
    row = -1
    with open_data_file(path) as stream:
        for line, raw in lines_of(path, stream):
            if line == 1:
                _check_line_ends(path, raw)
            if not raw.strip():
                continue
            try:
                text = decode_line(path, line, raw).removesuffix("\n").removesuffix("\r")
            except RowError as error:
                row += 1
                content = raw.decode("utf-8", "backslashreplace")
                on_bad_row(error.rejection(Origin(str(path), row, line), content))
                continue
            if not text.strip():  # blank by signs outside ASCII
                continue
            row += 1
            yield Origin(str(path), row, line), {"text": text}
    if row < 0:
        raise empty_error(path, "the file holds nothing but blank lines")


def _check_line_ends(path: Path, first: bytes) -> None:
    """Refuse a file that is one line for us, and was many lines for its author."""
    if not first.endswith(b"\n") and b"\r" in first.rstrip(b"\r"):
        raise DataError(
            "the lines end in bare carriage returns, so that the whole file is one line",
            where=f"{path}:1",
            mend=r"Convert it: tr '\r' '\n' < FILE > NEW_FILE.",
        )
