import unicodedata

import pytest

from luthier.corpus.text.characters import compose, remove_controls, remove_invisible


@pytest.mark.parametrize(
    ("damaged", "clean"),
    [
        ("a\x00b\x07c\x1b[1;31mred\x1b[0m\x7f", "abcred"),
        ("one\r\ntwo\rthree\u2028four\x0bfive", "one\ntwo\nthree\nfour\nfive"),
        ("\\(\x0crac{1}{2}\\) \x08egin{a} 3\times 4", "\\(\\frac{1}{2}\\) \\begin{a} 3\\times 4"),
        ("page\n\x0cnext", "page\n\nnext"),
        ("\ud83d\ude00 and \ud83d", "😀 and \ufffd"),
        ("\ufffc\uffff\x81", ""),
    ],
)
def test_controls_go(damaged, clean):
    assert remove_controls(damaged) == clean


@pytest.mark.parametrize("text", ["a\tb\nc", "name\teta\tfrac", "全角　空格，。", "\ttheir turn"])
def test_tabs_newlines_and_wide_spaces_stay(text):
    assert remove_controls(text) == text


@pytest.mark.parametrize(
    ("damaged", "clean"),
    [
        ("\ufeffzero\u200b width\u2060 pro-\xadgovern\u200dment", "zero width pro-government"),
        ("中\u200b文\u200c字\u200e", "中文字"),
        ("hidden\U000e0041\U000e0042 tags", "hidden tags"),
        ("\u202eevil\u202c", "evil"),
    ],
)
def test_invisible_characters_go(damaged, clean):
    assert remove_invisible(damaged) == clean


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d💻 and 👨\u200d👩\u200d👧 and ❤\ufe0f",
        "می\u200cخواهم",
        "क्\u200dष",
        "עברית \u200fABC",
        "ภาษา\u200bไทย",
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    ],
)
def test_invisible_characters_that_a_script_needs_stay(text):
    assert remove_invisible(text) == text


@pytest.mark.parametrize(
    "text", ["Sauté à Zürich", "が ぱ ガ", "한국어", "a ≠ b", "إيثار", "Tiếng Việt"]
)
def test_loose_accents_are_joined(text):
    assert compose(unicodedata.normalize("NFD", text)) == text


@pytest.mark.parametrize(
    "text", ["ＡＢＣ，。！", "5 Å (\u212b)", "300 \u212a", "\uf900豈", "ﬁ ² ½ ㎏"]
)
def test_single_characters_stay_as_they_were_typed(text):
    assert compose(text) == text
