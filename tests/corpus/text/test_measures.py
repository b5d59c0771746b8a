import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.corpus.text import measures

ZH = "琴师用云杉和枫木做琴，这是一门古老的手艺，需要多年的学习。每一把琴都有它自己的声音。"
EN = "The maker builds violins of spruce and maple; it is an old craft that takes years to learn. "


def test_a_chinese_character_is_a_word():
    assert measures.words_of("云杉 and maple_1") == ["云", "杉", "and", "maple", "1"]


def test_a_loop_repeats_its_words_and_prose_does_not():
    assert measures.repeated_words(EN * 20) > 0.9
    assert measures.repeated_words(ZH * 10) > 0.8
    assert measures.repeated_words(" ".join(f"word{at}" for at in range(100))) == 0
    assert measures.repeated_words("no no no no no no no") == 0


@given(st.text("abc ", max_size=400), st.floats(0.1, 0.9))
def test_the_short_way_never_hides_a_share_above_the_bound(text, above):
    full = measures.repeated_words(text)
    quick = measures.repeated_words(text, above=above)
    assert quick == full or (quick == 0 and full <= above)


def test_lines_that_come_again_are_counted_by_character_and_code_is_not():
    assert measures.repeated_lines("aaaa\nbb\naaaa\ncc") == pytest.approx(4 / 12)
    assert measures.repeated_lines("a\na") == 0
    assert measures.repeated_lines("one\n```\n}\n}\n}\n}\n}\n```\ntwo\nthree\nfour") == 0


@given(st.integers(0, 90), st.integers(0, 80), st.sampled_from("a啊0!"))
def test_the_longest_run_is_found_wherever_it_stands(before, length, character):
    text = "xy" * before + character * length + "yz"
    assert measures.longest_run(text) == (length if length >= measures.MIN_RUN else 0)


def test_rulers_are_no_run():
    assert measures.longest_run("-" * 200 + "=" * 200 + "." * 200 + " " * 200) == 0


def test_symbols_are_counted_alike_in_all_languages():
    assert measures.symbol_share(ZH * 2) == 0
    assert measures.symbol_share("हिन्दी में एक साधारण वाक्य, बिना किसी चिह्न के लिखा गया।") == 0
    assert measures.symbol_share("@#$%" * 10 + "ab" * 20) == pytest.approx(0.5)
    assert measures.symbol_share("@#$%" * 10 + "中文" * 20) == pytest.approx(0.5)
    assert (
        measures.symbol_share("text of words\n```\n" + "@#$%" * 50 + "\n```\n and more words") == 0
    )
    assert measures.symbol_share("$$$") == 0


@pytest.mark.parametrize(
    ("text", "is_cut"),
    [
        (EN * 3 + "and then the maker went to the workshop in order to fetch the", True),
        (
            ZH * 6
            + "然后他走进了工坊去拿那一把他很久以前放在那里的刀子因为他想要继续做他的琴并且" * 2,
            True,
        ),
        (EN * 3, False),
        (ZH * 8, False),
        ("Here:\n```py\nprint(1)", True),
        ("Here:\n```py\nprint(1)\n```", False),
        (EN * 3 + "\n- a last point of a list without a full stop, as most lists have them", False),
        (EN * 3 + "\nYours sincerely, the maker", False),
        (EN * 3 + "see https://example.org/a/very/long/link/that/goes/on/and/on/and/on", False),
        ("short answer", False),
    ],
)
def test_answers_that_are_cut_off_are_told(text, is_cut):
    assert measures.is_cut_off(text) is is_cut


@pytest.mark.parametrize(
    ("text", "is_refusal"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("As an AI language model, I have no opinions.", True),
        ("I’m sorry, I cannot do this", True),
        ("很抱歉，我无法回答这个问题。", True),
        ("作为一个AI语言模型，我没有个人观点。", True),
        ("I am sorry for your loss, and hope you are well.", False),
        ("You can't divide by zero.", False),
        ("他说他无法来。", False),
        ("x" * 400 + " I'm sorry, I can't", False),
    ],
)
def test_refusals_are_told(text, is_refusal):
    assert measures.is_refusal(text) is is_refusal


@given(st.text(st.characters(max_codepoint=127)))
def test_words_of_ascii_are_those_of_the_pattern(text: str):
    words = [word.encode() if isinstance(word, str) else word for word in measures.words_of(text)]
    assert words == [word.encode() for word in measures._WORD.findall(text)]


@given(st.text(alphabet="ab- ", max_size=20), st.sampled_from("a好-"), st.integers(30, 40))
def test_a_run_is_found_wherever_it_stands(before: str, character: str, length: int):
    text = before + "," + character * length + "," + before
    is_run = character != "-" and length >= measures.MIN_RUN
    assert measures.longest_run(text) == (length if is_run else 0)
