from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from luthier.core.errors import DataError
from luthier.corpus.readers import text_window
from luthier.corpus.readers.text_window import TextWindow


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(text_window, "_READ_BYTES", 8)


@contextmanager
def _window(path: Path) -> Iterator[TextWindow]:
    with path.open("rb") as stream:
        yield TextWindow(path, stream)


def test_text_comes_in_growing_pieces_and_what_was_read_goes(write_bytes):
    with _window(write_bytes("a.json", b"0123456789" * 10)) as window:
        window.grow()
        assert (window.text, window.is_last) == ("01234567", False)
        window.grow()
        assert len(window.text) == 16
        window.grow()
        assert len(window.text) == 32
        window.at = 30
        window.grow()
        assert (window.text, window.at) == ("0123456789", 0)
        for _ in range(9):
            window.grow()
        assert (len(window.text), window.is_last) == (70, True)


def test_characters_and_lines_across_pieces(write_bytes):
    with _window(write_bytes("a.json", "\ufeff天天天\n天天\n  天x".encode())) as window:
        assert window.peek(3) == "天天天"
        window.at = 2
        window.grow()
        assert (window.line_at(0), window.column_at(0)) == (1, 3)
        window.at = window.text.index("\n") + 2
        window.grow()
        assert (window.line_at(0), window.column_at(0)) == (2, 2)
        assert window.peek(9) == "天\n  天x"
        at = window.text.index("x")
        assert (window.line_at(at), window.column_at(at)) == (3, 4)
        assert window.line_at(0) == 2
        assert window.filled_line() == 3


def test_white_space_of_any_length(write_bytes):
    with _window(write_bytes("a.json", b"a \n" + b"\n" * 100 + b"b" + b"\n" * 100)) as window:
        assert window.peek(1) == "a"
        window.at = 1
        window.skip_space()
        assert (window.peek(1), window.line_at(window.at)) == ("b", 102)
        assert len(window.text) < 20
        window.at += 1
        window.skip_space()
        assert (window.peek(1), window.is_last) == ("", True)
        assert (window.filled_line(), window.line_at(window.at)) == (102, 202)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"0123\n" + b"x" * 20 + b"\0", r"a\.json:2: zero bytes at byte 21 of this line"),
        (b"x" * 20 + b"\n\0", r"a\.json:2: zero bytes at byte 1 of this line"),
        (b"0123\n" + "é".encode() * 9 + b"\xe9\n", r"a\.json:2: .*byte 19 of this line"),
        (b"0123\n0123456\xe5\xa4", r"a\.json:2: the file ends in the middle of a character"),
        ("天".encode("utf-16") * 9, r"a\.json:1: the file is not UTF-8, it is probably UTF-16"),
    ],
)
def test_damage_is_placed_wherever_a_piece_ends(write_bytes, data: bytes, message: str):
    with _window(write_bytes("a.json", data)) as window, pytest.raises(DataError, match=message):
        window.peek(99)


def test_no_value_is_longer_than_a_row_may_be(write_bytes, monkeypatch):
    monkeypatch.setattr(text_window, "MAX_ROW_BYTES", 20)
    with _window(write_bytes("a.json", b"\n" + b"x" * 99)) as window:
        window.skip_space()
        while len(window.text) < 20:
            window.grow()
        with pytest.raises(
            DataError, match=r"a\.json:2: the thing is longer than .* bytes\n  Look"
        ):
            window.grow("the thing")
