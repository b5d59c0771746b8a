import sys

import pytest

from luthier.core.errors import MissingExtraError, SettingsError
from luthier.corpus.text import word_list


def test_a_list_is_read_with_its_lines(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# head\nBad\n\n坏词\nbad\n", encoding="utf-8")
    assert word_list.read_word_list(path) == ((2, "bad"), (4, "坏词"))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a BAD thing", [2]),
        ("badly, abad, bad1", []),
        ("bad中文", [2]),
        ("这是坏词吗", [4]),
        ("坏词 and bad, bad", [2, 4]),
        ("nothing", []),
    ],
)
def test_words_match_whole_and_chinese_anywhere(text, lines):
    assert word_list.lines_found(((2, "bad"), (4, "坏词")), text) == lines


def test_words_within_words_of_the_list_are_found():
    assert word_list.lines_found(((1, "ab cd"), (2, "cd")), "ab cd") == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "can't be read"), (b"\xff\xfe\xff", "can't be read"), (b"# only\n\n", "holds no word")],
)
def test_a_list_that_is_of_no_use_is_refused(tmp_path, content, message):
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        word_list.read_word_list(path)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ahocorasick_rs", None)
    with pytest.raises(MissingExtraError, match="quality_word_list needs the package ahocorasick"):
        word_list.lines_found(((1, "a word that no other test has"),), "x")
