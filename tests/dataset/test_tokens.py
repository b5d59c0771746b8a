from __future__ import annotations

import pytest

from luthier.core.errors import DataError
from luthier.dataset.tokens import Encoder, Tokens


@pytest.fixture
def encoder(load_tiny):
    return lambda name: Encoder(load_tiny(name))


def test_a_place_is_found_although_leading_spaces_are_left_out_of_offsets(encoder):
    # The llama3 tokenizer trims: " dog" starts at 4 by its offsets, and really at 3.
    tokens = encoder("llama3").encode("The dog")
    assert tokens.spans[-1] == (4, 7)
    assert tokens.index(3) == tokens.index(4) == len(tokens.ids) - 1
    assert tokens.index(7) == len(tokens.ids)
    assert Tokens([], []).index(0) == 0


def test_a_character_of_several_tokens_is_on_one_side_of_a_place(encoder):
    tokens = encoder("chatml").encode("a\U0001f3bb")
    assert len(tokens.ids) > 2
    assert tokens.index(1) == 1
    assert tokens.index(2) == len(tokens.ids)


def test_padding_that_an_earlier_call_left_on_does_no_harm(load_tiny):
    tokenizer = load_tiny("chatml")
    tokenizer(["a", "a b c d e f"], padding=True, truncation=True, max_length=3)
    encoder = Encoder(tokenizer)
    lone, long = encoder.encode_batch(["a", "a b c d e f"])
    assert lone.ids == encoder.encode("a").ids == tokenizer("a").input_ids
    assert len(long.ids) > 3
    assert tokenizer.decode(long.ids) == "a b c d e f"


def test_control_ids_are_special_tokens_eos_and_added_tokens_of_the_template(load_tiny):
    tokenizer = load_tiny("chatml")
    tokenizer.add_tokens(["<think>", "</think>", "unrelated", "\n\n"])
    tokenizer.chat_template = "<think>\n\n"
    control = Encoder(tokenizer).control_ids
    expected = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>"]
    assert control == {*tokenizer.convert_tokens_to_ids(expected)}


def test_a_border_holds_if_the_text_before_it_has_those_tokens_alone(encoder):
    chatml = encoder("chatml")
    text = "<|im_start|>user: the dog"
    assert chatml.border_holds(text, chatml.encode(text), len("<|im_start|>user:"))
    assert not chatml.border_holds(text, chatml.encode(text), len("<|im_start|>user: "))
    bare = text.removeprefix("<|im_start|>")
    assert chatml.border_holds(bare, chatml.encode(bare), len("user:"))
    assert not chatml.border_holds(bare, chatml.encode(bare), len("user: "))


def test_a_text_in_two_reads_as_it_does_in_one(encoder, load_tiny):
    for name in ("chatml", "llama3", "llama2"):
        one = encoder(name)
        text = "user: the dog"
        whole = one.encode(text)
        border = len("user: t")
        both = one.encode_in_two(text, whole, border)
        head = one.encode(text[:border])
        assert both is not None
        assert both.ids[: len(head.ids)] == head.ids
        assert both.index(border) == len(head.ids)
        assert both.ends()[-1] == len(text)
        assert load_tiny(name).decode(both.ids) == load_tiny(name).decode(whole.ids)


def test_a_space_put_before_every_text_is_not_put_into_the_middle(encoder, load_tiny):
    # Llama 2's tokenizer reads "dog" alone as " dog".
    llama2 = encoder("llama2")
    both = llama2.encode_in_two("the dog", llama2.encode("the dog"), len("the d"))
    assert both is not None
    assert load_tiny("llama2").decode(both.ids) == "the dog"


def test_no_joined_reading_is_none(encoder, monkeypatch):
    chatml = encoder("chatml")
    monkeypatch.setattr(chatml, "_continuations", lambda _text: [chatml.encode("other")])
    assert chatml.encode_in_two("the dog", chatml.encode("the dog"), 3) is None


def test_short_texts_are_remembered_and_long_ones_are_not(encoder):
    chatml = encoder("chatml")
    for text in ("the dog", "the dog" * 20):
        assert chatml.ids(text) == chatml.ids(text) == chatml.encode(text).ids
    assert list(chatml._remembered) == ["the dog"]


def test_half_a_surrogate_pair_is_refused(encoder):
    with pytest.raises(DataError, match=r"a\.json:3: the text holds half of a surrogate pair"):
        encoder("chatml").check_text("x\udc00", "a.json:3")
    encoder("chatml").check_text("\U0001f3bb", "a.json:3")
