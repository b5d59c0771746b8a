"""How a byte-level BPE parts a text before it merges, by the name that llama.cpp has for it.

GGUF stores no pattern, only a name, and llama.cpp brings the code. The name is found in two ways:
by the hash of the ids of one odd text, as llama.cpp's converter does for published tokenizers; else
by the pattern in tokenizer.json. A pattern that llama.cpp has no name for is refused: with another
one, words would be cut elsewhere and the model would see tokens that it never saw in training.

Source of text and hashes (pre_tokenizers.json): llama.cpp's conversion/base.py,
get_vocab_base_pre (MIT)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from luthier.core.errors import ModelError

PROBE_TEXT = (
    "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis "
    "concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 "
    "កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български "
    "''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure "
    "I'll make it, 'D you like some tea? We'Ve a'lL"
)

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = "ByteLevel"
_DIGITS_GPT2 = "Digits+ByteLevel"

# With `ignore_merges` a word that is a token is taken as it is. llama.cpp ties that to the name.
_NAMES: Mapping[tuple[str, bool], str] = {
    (_LLAMA3, True): "llama-bpe",
    (_LLAMA3, False): "smaug-bpe",
    (_QWEN2, False): "qwen2",
    (_TEKKEN, True): "tekken",
    (_GPT2, False): "gpt-2",
    (_DIGITS_GPT2, False): "smollm",
}


def pre_tokenizer_of(ids_of_probe_text: Sequence[int], tokenizer_json: Mapping[str, Any]) -> str:
    """Return llama.cpp's name of a tokenizer's way to part texts.

    Args:
        ids_of_probe_text: Of `PROBE_TEXT`, special tokens included.
        tokenizer_json: The tokenizer as the tokenizers library describes it.

    Raises:
        ModelError: llama.cpp has no name for it, or none that is known here.
    """
    digest = hashlib.sha256(str(list(ids_of_probe_text)).encode()).hexdigest()
    ignores_merges = bool(tokenizer_json["model"].get("ignore_merges"))
    pattern = _pattern(tokenizer_json.get("pre_tokenizer") or {})
    name = name_of_hash(digest) or _NAMES.get((pattern, ignores_merges))
    if name is None:
        raise ModelError(
            f"GGUF has no name for the way that this tokenizer parts a text: {pattern[:120]!r}",
            where="tokenizer.json: pre_tokenizer",
            mend="Export another format: --to hf. Or ask llama.cpp to add it; the hash of its "
            f"probe text is {digest}.",
        )
    return name


def name_of_hash(digest: str) -> str | None:
    """Return the name of a published tokenizer's way, by the hash of its ids of `PROBE_TEXT`."""
    table = files("luthier.export.gguf").joinpath("pre_tokenizers.json")
    known: dict[str, str] = json.loads(table.read_text(encoding="utf-8"))
    return known.get(digest)


def _pattern(described: Mapping[str, Any]) -> str:
    """Return the steps of a pre-tokenizer as one string: a pattern, or names of steps."""
    steps = described.get("pretokenizers") or [described]
    words: list[str] = []
    for step in steps:
        match step:
            case {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False}:
                continue
            case {"type": "ByteLevel", "add_prefix_space": False}:
                words.append("ByteLevel")
            case {"type": "Split", "pattern": {"Regex": str(regex)}, "behavior": "Isolated"}:
                words.append(regex if not step.get("invert") else f"not {regex}")
            case {"type": "Digits", "individual_digits": True}:
                words.append("Digits")
            case _:
                words.append(json.dumps(step))
    return "+".join(words)
