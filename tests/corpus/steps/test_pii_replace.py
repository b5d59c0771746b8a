import pytest

from luthier.corpus.steps.pii_hits import Hit
from luthier.corpus.steps.pii_replace import Replacer, masked


def test_one_value_has_one_number_in_all_texts():
    replacer = Replacer("redact")
    first = replacer.replace(
        "a@b.c, d@e.f", [Hit(0, 5, "email", "a@b.c"), Hit(7, 12, "email", "d")]
    )
    again = replacer.replace("so A@B.C", [Hit(3, 8, "email", "a@b.c")])
    assert (first, again) == ("<EMAIL_1>, <EMAIL_2>", "so <EMAIL_1>")


def test_kinds_count_apart():
    hits = [Hit(0, 1, "phone", "x"), Hit(2, 3, "url_token", "y")]
    assert Replacer("redact").replace("x y", hits) == "<PHONE_1> <URL_TOKEN_1>"


def test_numbers_that_stand_in_the_row_are_not_given_again():
    replacer = Replacer("redact", ["<EMAIL_2> wrote", "<PHONE_7>"])
    assert replacer.replace("a", [Hit(0, 1, "email", "a")]) == "<EMAIL_3>"


@pytest.mark.parametrize(
    ("kind", "value", "mask"),
    [
        ("email", "alice@mail.example.com", "a***@***.com"),
        ("phone", "+86 138-1234-5678", "+** ***-****-5678"),
        ("credit_card", "4111 1111 1111 1234", "**** **** **** 1234"),
        ("bank_card", "6200000000000005", "************0005"),
        ("cn_id", "11010519491231002X", "**************002X"),
        ("iban", "GB82 WEST", "**** WEST"),
        ("ip", "81.2.69.142", "81.*.*.*"),
        ("ip", "2a01:4f8::7", "2a01:*:*"),
        ("password", "abc", "********"),
        ("api_key", "sk-abc", "********"),
        ("url_token", "a:b", "********"),
    ],
)
def test_masks_keep_the_shape(kind, value, mask):
    assert masked(kind, value) == mask
    assert (
        Replacer("mask").replace(f"({value})", [Hit(1, 1 + len(value), kind, "k")]) == f"({mask})"
    )
