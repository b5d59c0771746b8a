"""A tokenizer as llama.cpp has it: a list of tokens with their kinds, and merges or scores.

Two kinds of tokenizers are known. A byte-level BPE (GPT-2, Llama 3, Qwen) comes with its merges and
the name of its pre-tokenizer. A SentencePiece BPE (Llama 2, Mistral, Gemma) comes with scores:
llama.cpp joins the two neighbours whose join scores best, which is what merges in order of their
rank do. Both have as many tokens as the embedding has rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from luthier.core.errors import ModelError
from luthier.export.gguf.pre_tokenizers import PROBE_TEXT, pre_tokenizer_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as GGUF numbers them."""

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_LOOKS_SPECIAL = re.compile(r"<\|.*\|>|<｜.*｜>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]")
_NEVER = -1000.0
"""Score of a token that no merge makes."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a file says of its tokenizer.

    Attributes:
        model: gpt2 (byte-level BPE) or llama (SentencePiece).
        pre: Name of the pre-tokenizer.
        tokens: Text of each token.
        kinds: NORMAL, CONTROL ... of each.
        merges: Of a byte-level BPE.
        scores: Of SentencePiece, one a token.
        adds_space: Whether SentencePiece puts a space before a text.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    merges: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    adds_space: bool = False


def vocabulary_of(tokenizer: PreTrainedTokenizerBase, num_rows: int) -> Vocabulary:
    """Describe a tokenizer for llama.cpp.

    Args:
        tokenizer: As it was trained with.
        num_rows: Of the embedding; rows beyond the tokenizer become unused tokens.

    Raises:
        ModelError: It is neither kind of BPE, has more tokens than rows, or parts texts in a way
            that llama.cpp has no name for.
    """
    described = _described(tokenizer)
    model: dict[str, Any] = described["model"]
    if model.get("type") != "BPE":
        raise _refused(f"the tokenizer is a {model.get('type')}, and luthier writes only BPE")
    texts = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(texts) >= num_rows:
        raise _refused(f"the tokenizer has {max(texts) + 1} tokens, the embedding {num_rows} rows")
    is_sentencepiece = bool(model.get("byte_fallback"))
    added = {token["id"]: token for token in described["added_tokens"]}
    tokens: list[str] = []
    kinds: list[int] = []
    for number in range(num_rows):
        text = texts.get(number, f"[PAD{number}]")
        kind = UNUSED if number not in texts else NORMAL
        if number in added:
            kind = _kind_of_added(added[number])
            if kind == USER_DEFINED:
                text = text.replace("▁", " ")
        elif is_sentencepiece and _BYTE_TOKEN.fullmatch(text):
            kind = BYTE
        tokens.append(text)
        kinds.append(kind)
    merges = [_pair(merge) for merge in model["merges"]]
    if is_sentencepiece:
        unknown = model.get("unk_token")
        kinds = [UNKNOWN if text == unknown else k for text, k in zip(tokens, kinds, strict=True)]
        scores = _scores(tokens, kinds, merges)
        adds_space = _adds_space(tokenizer)
        return Vocabulary("llama", "default", tuple(tokens), tuple(kinds), (), scores, adds_space)
    pre = pre_tokenizer_of(cast(list[int], tokenizer(PROBE_TEXT)["input_ids"]), described)
    return Vocabulary(
        "gpt2", pre, tuple(tokens), tuple(kinds), tuple(f"{a} {b}" for a, b in merges)
    )


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text gets a BOS in front, as the tokenizer really does it."""
    ids = cast(list[int], tokenizer("a")["input_ids"])
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def adds_eos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text gets an EOS behind it, as the tokenizer really does it."""
    ids = cast(list[int], tokenizer("a")["input_ids"])
    return tokenizer.eos_token_id is not None and ids[-1] == tokenizer.eos_token_id


def _described(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refused("the tokenizer has no tokenizer.json")
    return cast(dict[str, Any], json.loads(backend.to_str()))


def _refused(problem: str) -> ModelError:
    return ModelError(problem, where="tokenizer.json", mend="Export another format: --to hf.")


def _kind_of_added(token: Mapping[str, Any]) -> int:
    # Some markers are not declared special, though no text should ever turn into them.
    is_control = token["special"] or _LOOKS_SPECIAL.fullmatch(token["content"])
    return CONTROL if is_control else USER_DEFINED


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _scores(
    tokens: list[str], kinds: list[int], merges: list[tuple[str, str]]
) -> tuple[float, ...]:
    ranks: dict[str, int] = {}
    for rank, (first, second) in enumerate(merges):
        ranks.setdefault(first + second, rank)
    return tuple(
        -float(ranks[text]) if kind == NORMAL and text in ranks else 0.0 if kind == BYTE else _NEVER
        for text, kind in zip(tokens, kinds, strict=True)
    )


def _adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a text behind a special token gets a space, as the tokenizer really does.

    That is where the texts of a chat stand. A tokenizer that adds a space only at the very start
    can't be told to llama.cpp, which knows no third way.
    """
    special = str(tokenizer.bos_token or tokenizer.eos_token or "")
    first = tokenizer.tokenize(special + "a", add_special_tokens=False)[1 if special else 0]
    return str(first).startswith("▁")
