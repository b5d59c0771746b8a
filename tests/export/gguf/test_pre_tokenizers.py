"""llama.cpp's name of a pre-tokenizer, by hash and by pattern."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.export.gguf.pre_tokenizers import PROBE_TEXT, name_of_hash, pre_tokenizer_of

PROBE_SHA256 = "a36179c1e2b1cfcfbfad1dc779addad2ffc778201e4cf0d538bddeafa2c526da"


def described(tokenizer: Any) -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str())


def test_the_probe_text_is_that_of_the_converter() -> None:
    # Another character, and no published tokenizer would be found.
    assert hashlib.sha256(PROBE_TEXT.encode()).hexdigest() == PROBE_SHA256


@pytest.mark.parametrize(
    ("name", "expected"), [("chatml", "gpt-2"), ("qwen", "qwen2"), ("llama3", "smaug-bpe")]
)
def test_an_own_tokenizer_is_known_by_its_pattern(
    tokenizer_of: Callable[[str], Any], name: str, expected: str
) -> None:
    tokenizer = tokenizer_of(name)
    assert pre_tokenizer_of(tokenizer(PROBE_TEXT)["input_ids"], described(tokenizer)) == expected


def test_words_that_are_tokens_are_taken_whole_under_another_name(
    tokenizer_of: Callable[[str], Any],
) -> None:
    llama3 = described(tokenizer_of("llama3"))
    llama3["model"]["ignore_merges"] = True
    assert pre_tokenizer_of([1], llama3) == "llama-bpe"


def test_digits_apart_are_known(tokenizer_of: Callable[[str], Any]) -> None:
    chatml = described(tokenizer_of("chatml"))
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, chatml["pre_tokenizer"]]
    chatml["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    assert pre_tokenizer_of([1], chatml) == "smollm"


def test_published_tokenizers_are_known_by_a_hash() -> None:
    smollm = "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249"
    assert name_of_hash(smollm) == "smollm"
    assert name_of_hash("0" * 64) is None


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Whitespace"},
        {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True},
        {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False},
    ],
)
def test_another_way_to_part_a_text_is_refused(
    tokenizer_of: Callable[[str], Any], step: dict[str, Any]
) -> None:
    odd = {**described(tokenizer_of("chatml")), "pre_tokenizer": step}
    with pytest.raises(ModelError, match="no name for the way that this tokenizer parts a text"):
        pre_tokenizer_of([1], odd)
