from luthier.contracts.corpus_step import Columns
from luthier.corpus.text import fields


def turn(role, content, weight=1.0):
    return {"role": role, "content": content, "weight": weight}


COLUMNS: Columns = {
    "id": ["a", "b", "c"],
    "messages": [
        [turn("user", "q"), turn("assistant", "old", 0.0), turn("assistant", "new")],
        [turn("user", "q2")],
        [],
    ],
    "chosen": [None, [turn("assistant", "good")], None],
    "rejected": [None, [turn("assistant", "bad")], None],
    "text": [None, None, "a document"],
}


def test_all_texts_of_a_row_are_found():
    assert fields.texts_of(COLUMNS, 0) == ["q", "old", "new"]
    assert fields.texts_of(COLUMNS, 1) == ["q2", "good", "bad"]
    assert fields.texts_of(COLUMNS, 2) == ["a document"]
    assert fields.texts_of({"id": ["a"]}, 0) == []


def test_only_what_carries_loss_is_taught():
    assert fields.taught_texts(COLUMNS, 0) == ["new"]
    assert fields.taught_texts(COLUMNS, 1) == ["good"]
    assert fields.taught_texts(COLUMNS, 2) == ["a document"]


def test_content_that_is_no_text_is_passed_over():
    assert fields.contents([turn("user", None), turn("user", "x"), {"role": "user"}]) == ["x"]
    assert fields.contents([turn("user", "x"), turn("tool", "y")], "tool") == ["y"]


def test_rows_are_picked_in_order():
    assert fields.kept(COLUMNS, [2, 0])["id"] == ["c", "a"]
    assert fields.kept(COLUMNS, [0, 1, 2]) is COLUMNS


def test_replacing_makes_anew_only_what_changes():
    before = COLUMNS["messages"][0]
    new = dict(fields.replace_texts(COLUMNS, 0, lambda text: text.replace("new", "newer")))
    assert list(new) == ["messages"]
    assert new["messages"][2] == turn("assistant", "newer")
    assert new["messages"][0] is before[0]
    assert before[2]["content"] == "new"
    assert dict(fields.replace_texts(COLUMNS, 2, str.upper)) == {"text": "A DOCUMENT"}
    assert dict(fields.replace_texts(COLUMNS, 1, lambda text: text)) == {}
