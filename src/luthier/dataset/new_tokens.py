"""Tokens of the user's own, added to a tokenizer before anything is made of it.

In: a tokenizer and texts. Out: the same tokenizer, in which each text is one token, and the ids
that are new. A token that is in the vocabulary already stays what it is, and is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from luthier.contracts.notice import Notice

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def add_new_tokens(
    tokenizer: PreTrainedTokenizerFast, special: Sequence[str], ordinary: Sequence[str]
) -> tuple[tuple[int, ...], tuple[Notice, ...]]:
    """Add tokens to a tokenizer, the special ones first.

    Each is found in a text exactly as it is written, whatever stands around it. Decoding leaves the
    special ones out where it is asked to skip them.

    Args:
        tokenizer: Changed in place.
        special: Tokens of a template or a protocol, such as `<tool_call>`.
        ordinary: Words of a field.

    Returns:
        The ids of those that are new, in their order, and a notice for each that is not.
    """
    from tokenizers import AddedToken

    vocabulary = tokenizer.get_vocab()
    notices: list[Notice] = []
    ids: list[int] = []
    for setting, texts in (("new_special_tokens", special), ("add_tokens", ordinary)):
        is_special = setting == "new_special_tokens"
        for text in texts:
            if text in vocabulary:
                reason = f"{text} is in the vocabulary already, and stays as it is"
                notices.append(Notice(setting, text, text, reason))
                continue
            token: Any = AddedToken(text, special=is_special, normalized=False)
            tokenizer.add_tokens([token], special_tokens=is_special)
            ids.append(tokenizer.get_added_vocab()[text])
    return tuple(ids), tuple(notices)
