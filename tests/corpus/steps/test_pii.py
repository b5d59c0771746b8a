"""The pii step over whole rows: what it changes, what it counts, and that no value gets out."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from luthier.contracts.corpus_step import Columns, Step
from luthier.core.errors import MissingExtraError, SettingsError
from luthier.corpus.steps import pii
from luthier.corpus.steps.pii import Pii, PiiSettings

PLANTED = {
    "email": "lena.w@acme-tools.de",
    "phone": "13987654321",
    "ip": "81.2.69.142",
    "url_token": "a1b2c3d4e5f6g7",
    "credit_card": "4111 1111 1111 1111",
    "bank_card": "6200000000000005",
    "cn_id": "11010519491231002X",
    "iban": "DE89 3704 0044 0532 0130 00",
    "api_key": "ghp_aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3",
    "password": "Tr0ub4dor&3",
}
SAID = {
    kind: [f"Here: {value} ok.", f"请看{value}，谢谢"] for kind, value in PLANTED.items()
} | {
    "url_token": ["see https://a.io/x?token=a1b2c3d4e5f6g7 ", "打开https://a.io/?token=a1b2c3d4e5f6g7，"],
    "password": ["Password: Tr0ub4dor&3\n", "密码是Tr0ub4dor&3，"],
}  # fmt: skip


def row(content: str, **cells: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": content, "weight": 1.0}]
    return {
        "id": "r1",
        "messages": messages,
        "text": None,
        "chosen": None,
        "rejected": None,
    } | cells


def columns_of(*rows: dict[str, Any]) -> Columns:
    return {name: [r[name] for r in rows] for name in rows[0]}


def step(**values: Any) -> Pii:
    return Pii(PiiSettings(**values))


def content(result: Any, index: int = 0) -> str:
    return result.columns["messages"][index][0]["content"]


@pytest.mark.parametrize("kind", PLANTED)
@pytest.mark.parametrize("language", [0, 1])
def test_each_kind_is_redacted_and_counted_in_both_languages(kind, language):
    result = Pii()(columns_of(row(SAID[kind][language])))
    assert content(result) == SAID[kind][language].replace(PLANTED[kind], f"<{kind.upper()}_1>")
    assert result.counts == {f"redacted_{kind}": 1}
    assert result.drops == []


def test_it_is_a_step():
    one: Step = Pii()
    assert one.name == "pii"


def test_question_answer_and_text_share_their_numbers():
    said = [{"role": "assistant", "content": "a@x.com b@x.com", "weight": 1.0}]
    cells = {"chosen": said, "rejected": [{"role": "assistant", "content": "", "weight": 1.0}]}
    result = Pii()(columns_of(row("Is it b@x.com?", text="A@X.com", **cells)))
    assert content(result) == "Is it <EMAIL_1>?"
    assert result.columns["chosen"][0][0]["content"] == "<EMAIL_2> <EMAIL_1>"
    assert result.columns["rejected"][0][0]["content"] == ""
    assert result.columns["text"] == ["<EMAIL_2>"]
    assert result.counts == {"redacted_email": 4}


def test_weights_roles_and_other_columns_stay_and_the_input_is_not_changed():
    columns = columns_of(row("a@x.com", tools="a@x.com", category="c"))
    before = copy.deepcopy(columns)
    result = Pii()(columns)
    assert columns == before
    assert result.columns["tools"] == ["a@x.com"]
    assert result.columns["messages"][0][0] == {
        "role": "user", "content": "<EMAIL_1>", "weight": 1.0}  # fmt: skip


def test_rows_without_hits_are_handed_on_as_they_are():
    columns = columns_of(row("In 2019 the city counted 48,300 cyclists."))
    assert Pii()(columns).columns == columns


def test_an_empty_batch():
    result = Pii()({"id": [], "messages": [], "text": []})
    assert result.columns == {"id": [], "messages": [], "text": []}


def test_mask():
    result = step(pii_action="mask")(columns_of(row("Write alice@mail.org or call 13987654321")))
    assert content(result) == "Write a***@***.org or call *******4321"
    assert result.counts == {"masked_email": 1, "masked_phone": 1}


def test_drop_takes_the_row_and_names_kinds_only():
    rows = [row("a@x.com, b@x.com, 13987654321", id="bad"), row("fine", id="good")]
    result = step(pii_action="drop")(columns_of(*rows))
    assert result.columns["id"] == ["good"]
    (drop,) = result.drops
    assert (drop.id, drop.reason, drop.detail) == ("bad", "pii", "email 2, phone 1")
    assert not result.counts


def test_report_changes_nothing_and_names_the_kinds_in_a_column():
    columns = columns_of(row("a@x.com", id="1"), row("fine", id="2"))
    result = step(pii_action="report")(columns)
    assert {name: result.columns[name] for name in columns} == columns
    assert result.columns["pii"] == ["email 1", None]
    assert result.counts == {"found_email": 1}


def test_kinds_that_are_not_asked_for_stay():
    text = "a@x.com 13987654321 81.2.69.142"
    assert content(step(pii_kinds=["email"])(columns_of(row(text)))).startswith("<EMAIL_1> 139")
    assert content(step(pii_kinds=["ip"])(columns_of(row(text)))).endswith("321 <IP_1>")


def test_allowed_values_stay_however_they_are_written():
    one = step(pii_allow=["Help@acme.com", "139 8765 4321"])
    text = "help@acme.com, 139-8765-4321"
    assert content(one(columns_of(row(text)))) == text


def test_private_addresses_by_setting():
    one = step(pii_private_ips=False)
    assert one.find("server 10.2.3.4") == []
    assert len(Pii().find("server 10.2.3.4")) == 1


def test_what_an_overlap_hid_is_found_in_a_later_pass():
    # The password is cut at the quote, and the address behind it is found once it is gone.
    result = Pii()(columns_of(row('password: ab12"x@y.com')))
    assert "x@y.com" not in content(result)
    assert content(Pii()(result.columns)) == content(result)


TEXTS = st.lists(
    st.one_of(
        st.sampled_from([said for pair in SAID.values() for said in pair]),
        st.sampled_from([" ", "\n", "=", "号", "a", "1", "@", "电话", "order", "password: "]),
    ),
    max_size=6,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=5), action=st.sampled_from(["redact", "mask"]))
def test_twice_is_once_and_batches_do_not_matter(texts, action):
    one = step(pii_action=action)
    rows = [row(text, id=str(i)) for i, text in enumerate(texts)]
    whole = one(columns_of(*rows))
    alone = [one(columns_of(r)) for r in rows]
    assert [content(r) for r in alone] == [content(whole, i) for i in range(len(rows))]
    assert sum((r.counts for r in alone), start=type(whole.counts)()) == whole.counts
    again = one(whole.columns)
    assert again.columns == whole.columns
    assert not again.counts


@settings(max_examples=100, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(PLANTED)), min_size=1, max_size=5),
    action=st.sampled_from(["redact", "mask", "drop"]),
    language=st.integers(0, 1),
)
def test_no_value_gets_out(kinds, action, language):
    text = "。\n".join(SAID[kind][language] for kind in kinds)
    result = step(pii_action=action)(columns_of(row(text, text=text)))
    shown = repr((result.columns["messages"], result.columns["text"], result.drops, result.counts))
    assert [value for value in PLANTED.values() if value in shown] == []


def test_pickle():
    one = step(pii_action="mask", pii_kinds=["email"])
    # The bytes are this test's own: a step crosses process borders this way.
    again = pickle.loads(pickle.dumps(one))  # noqa: S301
    assert again == one
    assert again(columns_of(row("a@x.com"))).columns == one(columns_of(row("a@x.com"))).columns


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pii_action": "erase"}, "'redact', 'mask', 'drop' or 'report'"),
        ({"pii_kinds": []}, "at least 1 item"),
        ({"pii_kinds": ["names"]}, "Input should be 'url_token'"),
        ({"pii_kinds": ["ip", "ip"]}, "one name stands twice: give each once"),
        ({"pii_phone_regions": ["CN", "CN"]}, "one name stands twice"),
        ({"pii_names": True}, "Extra inputs are not permitted"),
    ],
)
def test_settings_errors(values, message):
    with pytest.raises(ValidationError, match=message):
        PiiSettings(**values)


@pytest.mark.parametrize("region", ["UK", "china"])
def test_an_unknown_region(region):
    with pytest.raises(SettingsError, match=f"'{region}' is not the two-letter code of a country"):
        step(pii_phone_regions=[region])


def test_a_missing_package_is_told_before_any_row(monkeypatch):
    def missing():
        raise MissingExtraError.of("phonenumbers", "corpus", "the pii step")

    monkeypatch.setattr(pii, "phonenumbers", missing)
    with pytest.raises(MissingExtraError, match="the pii step needs the package phonenumbers"):
        Pii()
