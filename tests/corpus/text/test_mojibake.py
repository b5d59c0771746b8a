import sys

import pytest

from luthier.core.errors import MissingExtraError
from luthier.corpus.text.mojibake import LOST, is_usual, repair_mojibake

ZH = "琴师用云杉和枫木做琴，这是一门古老的手艺。"
PLAIN = [
    ZH,
    "“全角标点”，（括号）！ＡＢＣ１２３、《书名》……",
    "C'est l'été : « très élevé » — garçon, cœur, Noël, où ça ? élevé\xa0»",
    "ÄÖÜß äöü. Straße. ÅÄÖ. MAÇÃ. ¡Ándale! ¿Qué? ¡¿Cómo?! ¡ÁNIMO!",
    "Привет, мир. Ελληνικά. 日本語のテキスト。 한국어 문장입니다. हिन्दी वाक्य।",
    "繁體中文的電腦與雲端，們說開關門。",
    "猫 means cat, 脳 is a kanji, T恤 and A股 and 卡拉OK.",
    "The Chinese word for cat is 猫.",
    "ÑÁÉÍÓÚ",
    "Škoda žluťoučký, Łódź, İstanbul, Größe, ñandú, Þórr, pīnyīn, x² + y² = z², 5 μm ± 2",
    "20 °C ± 3 × 4 ÷ 2, 50 €, £5, ½, © 2024®, naïve café",
    "`Ã©` is what é looks like when é is read wrongly.",
]


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_not_damaged_stays(text):
    assert repair_mojibake(text) == text


FOREIGN = (
    "It’s “quoted” — naïve café, 20 °C today, says the señor",
    "中文：琴师用云杉做琴。",
    "A line with 😀 in it, and a second sentence.",
    "Привет, мир, это текст",
)
# GBK can't read the bytes of the first two to their end: there such damage loses bytes.
MISREAD = [(text, read) for read in ("latin-1", "sloppy-windows-1252") for text in FOREIGN]
MISREAD += [(text, "gb18030") for text in FOREIGN[2:]] + [("输出：JohnSmith 用户", "gb18030")]


@pytest.mark.parametrize(("text", "read"), MISREAD)
def test_utf8_read_as_something_else_is_restored(text, read):
    import ftfy  # noqa: F401 - registers sloppy-windows-1252

    damaged = text.encode().decode(read)
    assert damaged != text
    assert repair_mojibake(damaged) == text


@pytest.mark.parametrize("encoding", ["latin-1", "sloppy-windows-1252"])
def test_damage_done_twice_is_undone(encoding):
    damaged = ZH.encode().decode(encoding).encode().decode(encoding)
    assert repair_mojibake(damaged) == ZH


@pytest.mark.parametrize(
    "text", [ZH, "It’s 375°F today", "3 × 4 = 12", "π * r", "A café – open", "，（）："]
)
def test_gbk_read_as_latin_1_is_restored(text):
    assert repair_mojibake(text.encode("gbk").decode("latin-1")) == text


@pytest.mark.parametrize(
    "text",
    ["Très chouette, naturellement", "El Niño is a climate pattern", "25°C", "It is 42 × 12 = 504"],
)
def test_a_single_letter_read_as_gbk_is_restored_where_the_text_around_tells_it(text):
    damaged = text.encode().decode("gbk")
    assert damaged != text
    assert repair_mojibake(damaged) == text


def test_a_damaged_part_is_mended_and_code_is_not():
    # The é makes the whole no valid UTF-8, so the parts are looked at one by one.
    text = "Café: donâ€™t. `donâ€™t`\n```\nsâ€™il\n```\n"
    assert repair_mojibake(text) == "Café: don’t. `donâ€™t`\n```\nsâ€™il\n```\n"


@pytest.mark.parametrize("text", ["forum\ufffds", "锟斤拷", "ï¿½"])
def test_lost_bytes_are_seen(text):
    assert LOST.search(text)


def test_usual_characters_are_those_of_plain_text():
    assert all(map(is_usual, "中国的，。“é×√あ😀"))
    assert not any(map(is_usual, "涓枃鏄"))


def test_without_ftfy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert repair_mojibake("plain text needs nothing") == "plain text needs nothing"
    with pytest.raises(MissingExtraError, match="wrongly decoded text needs the package ftfy"):
        repair_mojibake("donâ€™t")
