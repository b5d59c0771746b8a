"""A tiny model, its tokenizer and rows, the same ones every time."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POISON = "½"
"""A character that stands in no other row: in the model `poisoned` its embedding is NaN."""

NUM_ROWS = 40

_SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Name three colours. Red, green and blue are three colours that everyone knows.",
)
_WORDS = ["red", "green", "blue", "amber", "violet", "ivory", "olive", "coral", "azure", "pearl"]
_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main() -> None:
    """Write everything into the folder that the command line names."""
    folder = Path(sys.argv[1])
    tokenizer = make_tokenizer()
    make_model(folder / "model", tokenizer)
    make_model(folder / "poisoned", tokenizer, nan_in=POISON)
    write_rows(folder / "rows.jsonl", NUM_ROWS)
    write_rows(folder / "val.jsonl", 4, seed=1)


def make_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer with a chatml template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = _CHATML
    return tokenizer


def make_model(folder: Path, tokenizer: Any, nan_in: str | None = None) -> None:
    """Write a Llama of 2 layers and width 32 with random weights, its head apart.

    Args:
        folder: Where to.
        tokenizer: Written beside it.
        nan_in: The embedding of this text's last token is no number.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    if nan_in is not None:
        with torch.no_grad():
            model.model.embed_tokens.weight[tokenizer.encode(nan_in)[-1]] = torch.nan
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def write_rows(
    path: Path, num_rows: int, *, seed: int = 0, poisoned: Sequence[int] = (), answer: str = ""
) -> None:
    """Write rows of questions about colours, of different lengths.

    Args:
        path: A jsonl file.
        num_rows: How many.
        seed: Other seeds, other rows.
        poisoned: Numbers of the rows that hold `POISON`.
        answer: In place of the answers of all rows.
    """
    draw = random.Random(seed)
    lines: list[str] = []
    for number in range(num_rows):
        words = " ".join(draw.choices(_WORDS, k=draw.randint(1, 5)))
        row = {
            "instruction": f"Name {number} colours{POISON if number in poisoned else ''}.",
            "output": answer or f"{words}.",
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
