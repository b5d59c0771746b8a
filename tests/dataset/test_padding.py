"""A reward model's pad token ends no answer, whatever the tokenizer brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from luthier.core.errors import ModelError
from luthier.dataset.padding import resolve_for_rewards
from luthier.dataset.rendering import stop_token_ids

Load = Callable[[str], Any]


def test_a_pad_token_of_its_own_stays(load_tiny: Load) -> None:
    tokenizer, notices = resolve_for_rewards(load_tiny("chatml"), "auto")
    assert tokenizer.pad_token == "<|endoftext|>"
    assert list(notices) == []


def test_an_end_of_turn_that_pads_is_replaced_and_said(load_tiny: Load) -> None:
    tokenizer = load_tiny("chatml")
    tokenizer.pad_token = "<|im_end|>"
    tokenizer, (notice,) = resolve_for_rewards(tokenizer, "auto")
    assert tokenizer.pad_token == "<|endoftext|>"
    assert tokenizer.pad_token_id not in stop_token_ids(tokenizer)
    assert str(notice) == (
        "pad_token: <|im_end|> -> <|endoftext|> "
        "(transformers reads a reward at the last token that is no pad token)"
    )


@pytest.fixture
def bare_tokenizer() -> Any:
    """A tokenizer with two special tokens, of which the one that ends an answer pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.chat_template = (
        "{{ '<s>' }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
        "{{ '</s>' if m['role'] == 'assistant' }}{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return tokenizer


def test_where_nothing_else_is_left_the_beginning_pads(bare_tokenizer: Any) -> None:
    tokenizer, (notice,) = resolve_for_rewards(bare_tokenizer, "auto")
    assert tokenizer.pad_token == notice.used == "<s>"


def test_no_token_that_could_pad(bare_tokenizer: Any) -> None:
    bare_tokenizer.bos_token = None
    with pytest.raises(ModelError, match="its pad token </s> also ends answers") as caught:
        resolve_for_rewards(bare_tokenizer, "auto")
    assert '"pad_token" in tokenizer_config.json' in str(caught.value)
