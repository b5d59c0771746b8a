"""Tokenizers as llama.cpp has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.export.gguf.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    adds_bos,
    adds_eos,
    vocabulary_of,
)


def test_a_byte_level_bpe_comes_with_its_merges(tokenizer_of: Callable[[str], Any]) -> None:
    tokenizer = tokenizer_of("qwen")
    tokenizer.add_tokens(["<tool_call>", "<|not special|>"])
    count = len(tokenizer)
    found = vocabulary_of(tokenizer, count + 2)
    assert (found.model, found.pre) == ("gpt2", "qwen2")
    assert found.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert found.kinds[:3] == (CONTROL,) * 3
    assert found.kinds[3] == NORMAL
    # A marker that looks special is never what a text turns into; a tool's is.
    assert found.kinds[count - 2 : count] == (USER_DEFINED, CONTROL)
    assert found.tokens[count:] == (f"[PAD{count}]", f"[PAD{count + 1}]")
    assert found.kinds[count:] == (UNUSED, UNUSED)
    assert "Ġ t" in found.merges or "t h" in found.merges
    assert all(len(merge.split(" ")) == 2 for merge in found.merges)


def test_sentencepiece_comes_with_scores_in_the_order_of_merges(
    tokenizer_of: Callable[[str], Any],
) -> None:
    found = vocabulary_of(tokenizer_of("llama2"), 900)
    assert (found.model, found.pre, found.merges) == ("llama", "default", ())
    assert found.kinds[:3] == (UNKNOWN, CONTROL, CONTROL)
    assert found.tokens[3] == "<0x00>"
    assert found.kinds[3] == BYTE
    scores = dict(zip(found.tokens, found.scores, strict=True))
    merges = json.loads(tokenizer_of("llama2").backend_tokenizer.to_str())["model"]["merges"]
    made = list(dict.fromkeys(first + second for first, second in merges))
    ranks = [scores[text] for text in made]
    assert ranks == sorted(ranks, reverse=True)
    assert len(set(ranks)) == len(made) > 50
    assert scores["[PAD899]"] < ranks[-1]
    assert found.adds_space is True
    assert vocabulary_of(tokenizer_of("gemma"), 900).adds_space is False


def test_what_a_text_gets_in_front_and_behind_is_asked_of_the_tokenizer(
    tokenizer_of: Callable[[str], Any],
) -> None:
    assert adds_bos(tokenizer_of("llama3"))
    assert not adds_bos(tokenizer_of("chatml"))
    assert not adds_eos(tokenizer_of("llama3"))


def test_more_tokens_than_rows_are_refused(tokenizer_of: Callable[[str], Any]) -> None:
    tokenizer = tokenizer_of("chatml")
    with pytest.raises(ModelError, match=f"has {len(tokenizer)} tokens, the embedding 100 rows"):
        vocabulary_of(tokenizer, 100)


def test_another_kind_of_tokenizer_is_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelError, match="is a WordLevel, and luthier writes only BPE"):
        vocabulary_of(PreTrainedTokenizerFast(tokenizer_object=words), 4)


def test_a_tokenizer_without_a_description_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        vocabulary_of(object(), 4)  # pyright: ignore[reportArgumentType]
