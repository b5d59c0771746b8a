import sys

import pytest

from luthier.core.errors import MissingExtraError
from luthier.corpus.steps import pii_checks as checks


@pytest.fixture
def fresh_imports():
    def clear():
        checks.stdnum.cache_clear()
        checks.phonenumbers.cache_clear()

    clear()
    yield
    clear()


@pytest.mark.parametrize(
    ("load", "package"),
    [(checks.stdnum, "python-stdnum"), (checks.phonenumbers, "phonenumbers")],
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, fresh_imports, load, package):
    monkeypatch.setitem(sys.modules, package.removeprefix("python-"), None)
    with pytest.raises(MissingExtraError, match=rf"the pii step needs the package {package}") as e:
        load()
    assert "luthier[corpus]" in str(e.value)


def test_cn_id_takes_valid_numbers_of_counties_that_are_gone():
    # The standard's own example, with X as its check character; 653226 is a county that stdnum's
    # cn.ric knows by another code.
    assert checks.is_cn_id("11010519491231002X")
    assert checks.is_cn_id("440524188001010014")


@pytest.mark.parametrize(
    "number",
    ["110105194912310021", "11010519491331002X", "99010519491231002X", "1101051949123100X", ""],
)
def test_cn_id_refuses_wrong_check_date_province_and_length(number):
    assert not checks.is_cn_id(number)


def test_old_cn_id_has_a_date():
    assert checks.is_old_cn_id("110105491231002")
    assert not checks.is_old_cn_id("110105491331002")
    assert not checks.is_old_cn_id("990105491231002")


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
    ],
)
def test_credit_cards_of_every_issuer(number):
    assert checks.is_credit_card(number)
    assert not checks.is_credit_card(number[:-1] + str((int(number[-1]) + 1) % 10))
    assert not checks.is_bank_card(number)


def test_a_right_check_digit_outside_every_range_is_no_card():
    assert checks.is_luhn("1234567812345670")
    assert not checks.is_credit_card("1234567812345670")
    assert not checks.is_bank_card("1234567812345670")


def test_bank_card():
    assert checks.is_bank_card("6222021234567890128") == checks.is_luhn("6222021234567890128")
    assert checks.is_bank_card("6200000000000005")


def test_iban_ends_before_the_words_that_follow():
    assert checks.iban_chars("DE89 3704 0044 0532 0130 00 BIC COBADEFF") == 27
    assert checks.iban_chars("GB82WEST12345698765432") == 22
    assert checks.iban_chars("DE88 3704 0044 0532 0130 00") == 0


@pytest.mark.parametrize("text", ["203.0.113.7", "10.2.3.4", "81.2.69.142", "2a01:4f8::7"])
def test_ip(text):
    assert checks.ip_key(text, private_ips=True) == text


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "0.0.0.0", "255.255.255.0", "8.8.8.8", "192.168.1.1", "224.0.0.1", "a::b", "::1",
     "300.1.1.1", "0.1.2.3"],
)  # fmt: skip
def test_addresses_that_point_at_nobody(text):
    assert checks.ip_key(text, private_ips=True) is None


def test_private_addresses_by_setting():
    assert checks.ip_key("10.2.3.4", private_ips=False) is None
    assert checks.ip_key("fe80::1", private_ips=True) == "fe80::1"
    assert checks.ip_key("fe80::1", private_ips=False) is None


def test_phone_key_is_one_for_all_spellings():
    assert checks.phone_key("13812345678", "CN") == checks.phone_key("+86 138-1234-5678", None)
    assert checks.phone_key("12345", "CN") is None
    assert checks.phone_key("x", "CN") is None


def test_a_made_up_number_counts_where_words_say_so():
    assert checks.phone_key("5551234567", "US") is None
    assert checks.phone_key("5551234567", "US", cued=True) == "+15551234567"


def test_looks_random():
    assert checks.looks_random("a8f3k29dkq02mfe1", 16)
    assert not checks.looks_random("a8f3", 16)
    assert not checks.looks_random("your_api_key_1234567", 16)
    assert not checks.looks_random("aaaaaaaaaaaaaaa1", 16)
    assert not checks.looks_random("abcdefghijklmnopq", 16)
    assert checks.looks_random("abcdefghijklmnopq", 16, letters_alone=True)


def test_compact_folds_full_width():
    assert checks.compact("１３８-１２３x") == "138123X"
