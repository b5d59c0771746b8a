from functools import partial

import pytest

from luthier.corpus.steps import pii_numbers as numbers
from luthier.corpus.steps.pii_hits import without_overlaps

REGIONS = ("CN", "US", "GB")
FINDERS = {
    "phone": partial(numbers.phones, regions=REGIONS),
    "card": numbers.cards,
    "cn_id": numbers.cn_ids,
    "iban": numbers.ibans,
    "ip": partial(numbers.ips, private_ips=True),
}


def values(name, text):
    return [text[h.start : h.end] for h in without_overlaps(FINDERS[name](text))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("我的手机号是13812345678，请联系", "13812345678"),
        ("致电138 1234 5678。", "138 1234 5678"),
        ("１３８１２３４５６７８", "１３８１２３４５６７８"),
        ("(+86-138-1234-5678)", "+86-138-1234-5678"),
        ("总机：010-62345678", "010-62345678"),
        ("（010）62345678", "（010）62345678"),
        ("客服400-820-8820", "400-820-8820"),
        ("电话：62345678转801", "62345678"),
        ("Phone 415-555-2671.", "415-555-2671"),
        ("Jo, (555) 123-4567, Acme", "(555) 123-4567"),
        ("call 4155552671", "4155552671"),
        ("Dial 020 7946 0958 now", "020 7946 0958"),
        ("+44 20 7946 0958", "+44 20 7946 0958"),
        ("From +33 6 12 34 56 78 2023", "+33 6 12 34 56 78"),
        ("0044 20 7946 0958", "0044 20 7946 0958"),
        ("phone=13812345678", "13812345678"),
        ("Details: +1-318-605-0968x78012", "+1-318-605-0968"),
        ("Details: 001-796-463-5212x493", "001-796-463-5212"),
        ("Details: 547.220.7401", "547.220.7401"),
        ("https://a.b/?mobile=13812345678", "13812345678"),
    ],
)
def test_phones(text, value):
    assert values("phone", text) == [value]


def test_a_list_of_phones():
    assert values("phone", "13812345678 13912345678/13712345678") == [
        "13812345678", "13912345678", "13712345678"]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "订单号13812345678",
        "tracking 13812345678",
        "13812345678 * 2 = 27624691356",
        "= -16666579378",
        "#### 13812345678",
        "https://item.a.com/13812345678.html",
        "a13812345678",
        "13812345678abc",
        "550e8400-e29b-41d4-a716-138123456780",
        "The number 4155552671 is prime",
        "0.13812345678",
        "12345678901",
        "ISBN 978-030-6406",
        "2010-2015-2020",
        "100-200-3000",
        "| 订单号 | 数量 |\n|---|---|\n| 13812345678 | 2 |",
        "order +44 20 7946 0958",
        "+12345678901234",
        "415-555-2671abc",
        "+999 1234 5678",
        "1 1 2 3 5 8 13 21 34 55 89 144 233 377",
    ],
)
def test_no_phones(text):
    assert values("phone", text) == []


def test_regions_decide_which_national_forms_count():
    found = list(numbers.phones("13812345678 and 415-555-2671", ("US",)))
    assert [h.key for h in found] == ["+14155552671"]
    assert list(numbers.phones("13812345678", ("DE",))) == []


@pytest.mark.parametrize(
    ("text", "value", "kind"),
    [
        ("卡号4111 1111 1111 1111到期", "4111 1111 1111 1111", "credit_card"),
        ("pay with 5555-5555-5555-4444", "5555-5555-5555-4444", "credit_card"),
        ("Amex 3782 822463 10005.", "3782 822463 10005", "credit_card"),
        ("card 4111 1111 1111 1111 2025", "4111 1111 1111 1111", "credit_card"),
        ("Visa 4222222222222", "4222222222222", "credit_card"),
        ("- 4111111111111111", "4111111111111111", "credit_card"),
        ("银行卡6200000000000005", "6200000000000005", "bank_card"),
    ],
)
def test_cards(text, value, kind):
    (hit,) = numbers.cards(text)
    assert (text[hit.start : hit.end], hit.kind) == (value, kind)


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",
        "order 4111111111111111",
        "流水号4111111111111111",
        "4222222222222",
        "= 4111111111111111",
        "https://a.b/4111111111111111",
        "1234567812345670",
        "14111111111111111",
    ],
)
def test_no_cards(text):
    assert values("card", text) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("身份证号11010519491231002X，男", "11010519491231002X"),
        ("ID 11010519491231002x.", "11010519491231002x"),
        ("110105 19491231 002X", "110105 19491231 002X"),
        ("身份证110105491231002", "110105491231002"),
    ],
)
def test_cn_ids(text, value):
    assert values("cn_id", text) == [value]


@pytest.mark.parametrize(
    "text",
    ["110105194912310021", "编号110105491231002", "911010519491231002X", "123456789012345678"],
)
def test_no_cn_ids(text):
    assert values("cn_id", text) == []


def test_ibans():
    text = "IBAN DE89 3704 0044 0532 0130 00 BIC X，或GB82WEST12345698765432。"
    assert values("iban", text) == ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"]
    assert values("iban", "DE88 3704 0044 0532 0130 00, AB12 CDEF 3456 7890 XYZ1") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("login from 81.2.69.142.", "81.2.69.142"),
        ("服务器10.2.3.4宕机", "10.2.3.4"),
        ("http://1.2.3.4/x", "1.2.3.4"),
        ("ssh root@81.2.69.142", "81.2.69.142"),
        ("ping 1.2.3.4", "1.2.3.4"),
        ("81.2.69.142:8080", "81.2.69.142"),
        ("Host 2a01:4f8:1:2::7: timed out", "2a01:4f8:1:2::7"),
        ("at c945:c13c:ae04:962d:84f7:40cf:4c3:f8a5", "c945:c13c:ae04:962d:84f7:40cf:4c3:f8a5"),
        ("来自240e:1:2:3:4:5:6:7的", "240e:1:2:3:4:5:6:7"),
    ],
)
def test_ips(text, value):
    assert values("ip", text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "version 81.2.69.142",
        "v81.2.69.142",
        "版本81.2.69.142",
        "Chrome/120.0.60.71",
        "1.2.3.4 Introduction",
        "81.2.69.142.5",
        "127.0.0.1 8.8.8.8",
        "std::vector<int> a::b 12:30:45",
        "00:1A:2B:3C:4D:5E",
    ],
)
def test_no_ips(text):
    assert values("ip", text) == []


def test_has_number():
    assert numbers.has_number("a 8.8.8.8")
    assert not numbers.has_number("in 2019, 12.5% of 48,300")
