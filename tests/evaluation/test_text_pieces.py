from __future__ import annotations

import pytest

from luthier.evaluation.text_pieces import TextPieces, decode_answer

TEXTS = [
    "琴师用云杉和枫木做琴，第二天再上漆。",
    "Emoji: 🎻🙂👩‍🎨 and é, then  two spaces\n\nand a new paragraph.",
    "龘 is rare; Ω is not.",
]


@pytest.mark.parametrize("name", ["chatml", "llama3", "llama2"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_never_split_a_character(load_tiny, name, text):
    tokenizer = load_tiny(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(ids) > len(text) / 2
    pieces = TextPieces(tokenizer)
    shown = [pieces.add(token) for token in ids]
    assert not any("\ufffd" in piece for piece in shown)
    assert "".join([*shown, pieces.end()]) == decode_answer(tokenizer, ids)


def test_text_comes_as_soon_as_it_is_certain(tiny_tokenizer):
    ids = tiny_tokenizer.encode("漆a", add_special_tokens=False)
    pieces = TextPieces(tiny_tokenizer)
    shown = [pieces.add(token) for token in ids]
    assert shown == ["", "", "漆", "a"]


def test_bytes_that_become_no_character_are_kept_at_the_end(tiny_tokenizer):
    first_byte = tiny_tokenizer.encode("漆", add_special_tokens=False)[0]
    pieces = TextPieces(tiny_tokenizer)
    assert pieces.add(first_byte) == ""
    assert pieces.end() == "\ufffd"


def test_special_tokens_are_left_out(tiny_tokenizer):
    ids = tiny_tokenizer.encode("<|im_start|>Red<|im_end|>", add_special_tokens=False)
    assert decode_answer(tiny_tokenizer, ids) == "Red"
