import pytest

from luthier.corpus.text.scripts import language_by_script, sample


@pytest.mark.parametrize(
    ("text", "language", "is_settled"),
    [
        ("A plain sentence in English.", "en", False),
        ("“Quoted” — it’s a naïve but long enough sentence in plain English prose.", "en", False),
        ("琴师用云杉和枫木做琴。", "zh", True),
        ("使用 pip install 安装 transformers 和 torch 这两个库即可。", "zh", True),
        ("The word 琴 means a string instrument.", "en", False),
        ("これは日本語の文章です。", "ja", True),
        ("안녕하세요, 반갑습니다.", "ko", True),
        ("Мастер делает скрипки из ели.", "und", False),
        ("Élève à l'été où ça goûte très épicé", "und", False),
        ("12 + 3 = 15", "und", False),
        ("", "und", False),
    ],
)
def test_letters_point_to_a_language(text, language, is_settled):
    assert language_by_script(text) == (language, is_settled)


def test_code_is_no_sample_unless_it_is_all_there_is():
    assert sample(["好的：\n```\nprint('hello')\n```"]) == "好的："
    assert sample(["```\nprint('hello')\n```"]).startswith("```")
    assert len(sample(["x" * 5_000, "y"])) == 1_000
