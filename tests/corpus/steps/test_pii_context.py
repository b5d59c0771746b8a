import pytest

from luthier.corpus.steps.pii_context import in_arithmetic, in_url, verdict

N = "13812345678"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"call me at {N}", "for"),
        (f"电话：{N}", "for"),
        (f"order {N}", "against"),
        (f"订单号{N}", "against"),
        (f"order 5 is late, so call {N}", "for"),
        (f"call about order {N}", "against"),
        (f"Your order is late. See {N}", None),
        (f"订单已发出。{N}", None),
        (f"Tel. {N}", "for"),
        (f"Order No. {N}", "against"),
        (f"the border {N}", None),
        (f"phone\n{N}", None),
        (f"订单里的东西已经全部都收到了谢谢你们{N}", None),
    ],
)
def test_the_nearest_word_of_the_sentence_decides(text, said):
    assert verdict(text, text.index(N), "phone") == said


@pytest.mark.parametrize("mark", ["|", "\t", ","])
def test_in_a_table_the_head_of_the_column_decides(mark):
    rows = [["qty", "order", "phone"], ["1", N, "x"], ["2", "y", N]]
    text = "\n".join(mark.join(row) for row in rows)
    assert verdict(text, text.index(N), "phone") == "against"
    assert verdict(text, text.rindex(N), "phone") == "for"


def test_the_first_column_has_a_head_too():
    text = f"order,qty\n{N},2"
    assert verdict(text, text.index(N), "phone") == "against"


def test_a_line_with_fewer_columns_is_no_head():
    text = f"order\n| 1 | {N} |"
    assert verdict(text, text.index(N), "phone") is None


@pytest.mark.parametrize("text", [f"= {N}", f"$ {N}", f"= -{N}", f"{N} * 2", f"{N} km", f"{N}元",
                                  f"3 - {N}", f"#### {N}", f"{N} people"])  # fmt: skip
def test_sums_and_amounts(text):
    start = text.index(N)
    assert in_arithmetic(text, start, start + len(N))


@pytest.mark.parametrize("text", [f"- {N}", f"{N} - Bob", f"是{N}，", f"{N} means", f"end. - {N}"])
def test_lists_and_sentences_are_no_sums(text):
    start = text.index(N)
    assert not in_arithmetic(text, start, start + len(N))


def test_in_url():
    text = f"see https://a.b/{N} or {N}"
    assert in_url(text, text.index(N))
    assert not in_url(text, text.rindex(N))
