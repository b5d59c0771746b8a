from __future__ import annotations

import json

import pytest

from luthier.contracts.conversation import Conversation, Record
from luthier.core.errors import DataError, SettingsError
from luthier.recipes.evaluation_rows import rows_of_file, rows_of_run

GSM8K = {"question": "2 + 2?", "answer": "It is 4.\n#### 4", "level": 3}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye."},
        {"role": "assistant", "content": "Goodbye."},
    ]
}


@pytest.fixture
def file(write_file):
    def write(*rows, name="my rows.v2.jsonl"):
        return str(write_file(name, "".join(f"{json.dumps(row)}\n" for row in rows)))

    return write


def test_the_last_answer_is_the_reference(file):
    found = rows_of_file(file(GSM8K, CHAT, {"text": "A story."}), None)
    sums, chat, text = found.rows
    assert (sums.reference, [turn.content for turn in sums.prompt]) == (GSM8K["answer"], ["2 + 2?"])
    assert sums.fields["level"] == 3
    assert (chat.reference, len(chat.prompt)) == ("Goodbye.", 4)
    assert isinstance(chat.record, Conversation)
    assert isinstance(text.record, Record)
    assert text.is_text
    assert text.reference == ""
    assert str(chat.origin).endswith("my rows.v2.jsonl:2")
    assert found.name == "my-rows"


def test_the_first_rows_are_taken(file):
    path = file(GSM8K, CHAT, {"broken": 1})
    found = rows_of_file(path, 2)
    assert len(found.rows) == 2
    assert found.name == "my-rows-2"
    assert found.path == path


def test_rows_are_known_by_what_they_say(file):
    one = rows_of_file(file(GSM8K), None).sha256()
    assert rows_of_file(file(GSM8K, CHAT, name="other.jsonl"), 1).sha256() == one
    assert rows_of_file(file({**GSM8K, "answer": "5"}), None).sha256() != one


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "2 + 2?"}, "the field answer is missing"),
        ({"messages": CHAT["messages"][:2]}, "assistant"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "rank"),
        ({"x": 1}, "no format that is known"),
        ({"question": "2 + 2?", "answer": " "}, "the answer is blank"),
    ],
)
def test_a_row_without_an_answer_is_refused_by_file_and_line(file, row, message):
    path = file(GSM8K, row)
    with pytest.raises(DataError, match=message) as caught:
        rows_of_file(path, None)
    assert caught.value.where == f"{path}:2"


@pytest.mark.parametrize("content", ["[]", "\n\n", ""])
def test_a_file_without_rows_is_refused(write_file, content):
    path = str(write_file("none.json", content))
    with pytest.raises(DataError, match=r"empty|blank") as caught:
        rows_of_file(path, None)
    assert caught.value.where == path


def test_a_run_has_the_rows_of_its_validation_file(small_run, recorder):
    found = rows_of_run(small_run.config(), None, recorder)
    assert [row.prompt[0].content for row in found.rows] == ["Say 0.", "Say 1.", "Say 2."]
    assert found.rows[0].fields["messages"][1]["content"] == "Red"
    assert found.name == "validation"
    assert found.path.endswith("val.jsonl")
    assert rows_of_run(small_run.config(), 1, recorder).name == "validation-1"


def test_a_run_has_the_rows_that_its_split_took_out(small_run, recorder):
    config = small_run.config(val_file=None, val_size=4)
    found = rows_of_run(config, None, recorder)
    assert recorder.prepared is not None
    origins = list(recorder.prepared.val["origin"])
    assert [str(row.origin) for row in found.rows] == origins
    assert len(origins) == 4
    assert found.rows[0].fields["instruction"] == found.rows[0].prompt[0].content


def test_a_run_has_the_rows_of_the_corpus_that_its_steps_left(small_run, recorder, tmp_path):
    corpus = str(tmp_path / "corpus")
    config = small_run.config(steps=["exact"], corpus_dir=corpus)
    found = rows_of_run(config, None, recorder)
    assert {row.reference for row in found.rows} == {"Red"}
    assert all(row.prompt[-1].content.startswith("Say") for row in found.rows)


def test_a_run_of_texts_has_its_documents_whole(small_run, recorder, file):
    texts = [{"text": f"Text {n}. " * 30} for n in range(3)]
    train = file(*[{"text": f"Other {n}."} for n in range(4)], name="train.jsonl")
    config = small_run.config(
        stage="pt", train_file=train, val_file=file(*texts, name="val2.jsonl"), cutoff_len=16
    )
    found = rows_of_run(config, None, recorder)
    assert [row.fields for row in found.rows] == texts
    assert all(row.is_text for row in found.rows)


def test_a_run_without_validation_rows_needs_data(small_run, recorder):
    with pytest.raises(DataError, match=r"no validation rows\n.*--data FILE"):
        rows_of_run(small_run.config(val_file=None), None, recorder)


def test_rows_that_rank_answers_are_no_rows_to_measure(small_run, recorder):
    config = small_run.config(stage="dpo", learning_rate=1e-5)
    with pytest.raises(SettingsError, match=r"stage: dpo hold no single answer(.|\n)*--data FILE"):
        rows_of_run(config, None, recorder)
