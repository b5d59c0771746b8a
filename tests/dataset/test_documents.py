"""Documents to rows: every token but the first is a target once, whatever the length."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luthier.contracts.conversation import Corpus, Origin, Record, Rejection
from luthier.contracts.rows import IGNORE_INDEX
from luthier.core.errors import ModelError
from luthier.dataset import documents as documents_module
from luthier.dataset.documents import (
    DOCUMENTS,
    DocumentMaker,
    begin_token_id,
    end_token_id,
    make_document_rows,
)
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.side import Side
from luthier.dataset.tokens import Encoder, Tokens

EOS = 99


def record(text: str, number: int = 1, **more: Any) -> Record:
    return Record(Origin("text.txt", number - 1, number), text=text, **more)


class ByCharacter(Encoder):
    """One token a character: its id is the character's number."""

    control_ids = frozenset({EOS})

    def __init__(self) -> None:
        pass

    def encode_batch(self, texts: Any) -> list[Tokens]:
        return [
            Tokens([ord(char) - 97 for char in text], [(i, i + 1) for i in range(len(text))])
            for text in texts
        ]


def side_of(texts: list[str], cutoff_len: int, bos: int | None = None) -> Side:
    maker = DocumentMaker(ByCharacter(), bos, EOS, cutoff_len, lambda *_: None)
    records = [record(text, number) for number, text in enumerate(texts, start=1)]
    return maker.make(Corpus(records, [], len(texts)))


@given(
    texts=st.lists(st.text("abcdé", min_size=1, max_size=60), min_size=1, max_size=5),
    cutoff_len=st.integers(8, 40),
    bos=st.sampled_from([None, 98]),
)
def test_every_token_but_the_first_is_predicted_just_once(texts, cutoff_len, bos):
    side = side_of(texts, cutoff_len, bos)
    assert len(side.rows) == len(texts)
    for text, rows in zip(texts, side.rows, strict=True):
        whole = [*([98] if bos else []), *(ord(char) - 97 for char in text), EOS]
        targets: list[int] = []
        for row in rows:
            ids, labels = row.input_ids.tolist(), row.labels.tolist()
            assert 2 <= len(ids) <= cutoff_len
            assert labels == [IGNORE_INDEX, *ids[1:]]
            # What a row is conditioned on is what stands before it in the document.
            start = len(targets)
            assert ids == whole[start : start + len(ids)]
            targets += ids[1:]
        assert targets == whole[1:]
        assert all(len(row.input_ids) == cutoff_len for row in rows[:-1])
        unpredicted = 0 if bos else len(text[0].encode())
        assert sum(row.text_bytes or 0 for row in rows) == len(text.encode()) - unpredicted
    num_tokens = sum(len(text) + 1 + (bos is not None) for text in texts)
    supervised = sum(row.num_supervised() for rows in side.rows for row in rows)
    assert supervised == num_tokens - len(texts)
    assert side.num_continued == sum(len(rows) - 1 for rows in side.rows)


def test_rows_of_one_document_are_told_apart():
    side = side_of(["a" * 20, "bc"], 8)
    origins = [[row.origin for row in rows] for rows in side.rows]
    parts = [f"text.txt:1 (part {number} of 3)" for number in (1, 2, 3)]
    assert origins == [parts, ["text.txt:2"]]


def test_batches_end_by_rows_and_by_characters(monkeypatch):
    sizes: list[int] = []

    class Counting(ByCharacter):
        def encode_batch(self, texts: Any) -> list[Tokens]:
            sizes.append(len(texts))
            return super().encode_batch(texts)

    monkeypatch.setattr(documents_module, "BATCH_SIZE", 3)
    monkeypatch.setattr(documents_module, "MAX_BATCH_CHARS", 10)
    seen: list[tuple[str, int, int]] = []
    maker = DocumentMaker(Counting(), None, EOS, 64, lambda *state: seen.append(state))
    texts = ["a" * 30, "b", "c", "d", "e", "f" * 9, "gg"]
    side = maker.make(Corpus([record(text) for text in texts], [], 7))
    assert sizes == [1, 3, 2, 1]
    assert [rows[0].input_ids[0] for rows in side.rows] == [ord(text[0]) - 97 for text in texts]
    assert seen == [("tokenising", done, 7) for done in (0, 1, 4, 6, 7)]


@pytest.fixture
def make(load_tiny):
    def run(name: str, *records: Record, cutoff_len: int = 64, tokenizer: Any = None) -> Side:
        return make_document_rows(
            Corpus([*records], [Rejection(Origin("f", 0), "read", "")], 9),
            tokenizer or load_tiny(name),
            DatasetSettings(cutoff_len=cutoff_len),
            False,
            lambda *_: None,
        )

    return run


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3"])
def test_bos_only_where_the_tokenizer_wants_one_and_eos_once(name: str, make, load_tiny):
    tokenizer = load_tiny(name)
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token
    assert begin_token_id(tokenizer) == tokenizer.bos_token_id
    text = "the dog, the 狗 and the café"
    spelled = record(f"{bos}{text}{eos}")
    (plain,), (marked,) = make(name, record(text), spelled, cutoff_len=200).rows
    ids = plain.input_ids.tolist()
    assert ids == tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
    first = marked.input_ids.tolist()
    assert first.count(tokenizer.eos_token_id) == 1
    assert first[-1] == tokenizer.eos_token_id
    assert name == "chatml" or first.count(tokenizer.bos_token_id) == 1
    # Neither mark has bytes; the first token has none where nothing predicts it.
    end_of_first = 0 if bos else tokenizer(text).token_to_chars(0).end
    assert plain.text_bytes == len(text[end_of_first:].encode())
    assert marked.text_bytes == plain.text_bytes


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3"])
def test_bytes_of_parts_add_up(name: str, make):
    text = "The dog sat on the mat — 狗坐在垫子上 🙂.\n" * 9
    (whole,) = make(name, record(text), cutoff_len=4096).rows
    (parts,) = make(name, record(text), cutoff_len=8).rows
    assert len(parts) > 9
    assert sum(part.text_bytes or 0 for part in parts) == whole[0].text_bytes
    assert sum(part.num_supervised() for part in parts) == len(whole[0].input_ids) - 1


def test_a_tokenizer_that_can_put_bos_and_does_not(load_tiny):
    tokenizer = load_tiny("chatml")
    tokenizer.bos_token = "<|im_start|>"
    assert tokenizer.bos_token_id is not None
    assert begin_token_id(tokenizer) is None


def test_weights_of_documents(make):
    half, one, none = (
        record("the dog", number, weight=w) for number, w in ((1, 0.5), (2, 1.0), (3, 0.0))
    )
    side = make("chatml", half, one, none)
    (weighted,), (plain,) = side.rows
    assert plain.loss_weights is None
    assert weighted.loss_weights.tolist() == [0.0] + [0.5] * (len(weighted.input_ids) - 1)
    assert [(r.reason, r.detail) for r in side.rejections[1:]] == [
        ("no_supervised_token", "its weight is 0")
    ]
    assert [str(row.origin) for row in side.conversations] == ["text.txt:1", "text.txt:2"]


def test_a_text_without_a_token_leaves_for_a_reason(make):
    side = make("chatml", record("<|im_end|>"), record("the dog", 2))
    assert side.num_read == 9
    assert [(r.reason, r.detail) for r in side.rejections] == [
        ("read", ""),
        ("empty_text", "no token stands for its text"),
    ]
    assert side.rejections[1].content == "<|im_end|>"
    assert len(side.rows) == 1


def test_control_tokens_in_the_text_are_remarked(make):
    side = make("chatml", record("a<|im_end|>b"), record("a b<|im_end|>", 2), record("a b", 3))
    assert side.remarks == {"control_tokens": ["text.txt:1"]}


def test_no_chat_template_is_needed(load_tiny):
    tokenizer = load_tiny("llama3")
    assert tokenizer.chat_template is None
    assert DOCUMENTS.describe(tokenizer) == {"rows": "documents"}
    assert DOCUMENTS.stop_token_ids(tokenizer) == [tokenizer.eos_token_id]


def test_a_tokenizer_without_an_end_token_is_refused(make, load_tiny):
    tokenizer = load_tiny("llama3")
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match=r'names no end token(.|\n)*Add "eos_token"'):
        end_token_id(tokenizer)
    with pytest.raises(ModelError, match="names no end token"):
        make("llama3", record("the dog"), tokenizer=tokenizer)
