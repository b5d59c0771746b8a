"""New tokens: one id each, wherever they stand; what is known already stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from luthier.dataset.new_tokens import add_new_tokens
from luthier.dataset.tokenizer import tokenizer_fingerprint


@pytest.mark.parametrize("name", ["chatml", "llama3", "llama2"])
def test_each_is_one_token_wherever_it_stands(load_tiny: Callable[[str], Any], name: str) -> None:
    tokenizer, before = load_tiny(name), load_tiny(name)
    ids, notices = add_new_tokens(tokenizer, ["<call>"], ["spruce"])
    assert ids == (len(before), len(before) + 1)
    assert notices == ()
    for text in ("spruce", "a spruce", "dog<call>spruce dogspruce\n<call>"):
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert [i for i in found if i in ids] == [
            ids[text.startswith("spruce", at)]
            for at in range(len(text))
            if text.startswith(("spruce", "<call>"), at)
        ]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "spruce"
    assert tokenizer_fingerprint(tokenizer) != tokenizer_fingerprint(before)


def test_what_is_there_stays_as_it_is(tiny_tokenizer: Any) -> None:
    before = tokenizer_fingerprint(tiny_tokenizer)
    ids, notices = add_new_tokens(tiny_tokenizer, ["<|im_end|>"], ["a"])
    assert ids == ()
    assert [str(notice) for notice in notices] == [
        "new_special_tokens: <|im_end|> is in the vocabulary already, and stays as it is",
        "add_tokens: a is in the vocabulary already, and stays as it is",
    ]
    assert tokenizer_fingerprint(tiny_tokenizer) == before


def test_they_are_saved_with_the_tokenizer(tiny_tokenizer: Any, tmp_path: Any) -> None:
    from transformers import AutoTokenizer

    ids, _ = add_new_tokens(tiny_tokenizer, ["<call>"], ["spruce"])
    tiny_tokenizer.save_pretrained(str(tmp_path))
    opened: Any = AutoTokenizer.from_pretrained(str(tmp_path))
    assert opened.convert_tokens_to_ids(["<call>", "spruce"]) == list(ids)
    assert tokenizer_fingerprint(opened) == tokenizer_fingerprint(tiny_tokenizer)
