"""What all tests share: tiny tokenizers and models, made on the spot; no test asks the hub."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Name three colours. Red, green and blue are three colours that everyone knows.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3\n",
    "user assistant system Instruction Response Below is an instruction that describes a task.",
    "琴师用云杉和枫木做琴，这是一门古老的手艺。请用中文回答下面的问题。",
    "Мастер делает скрипки из ели и клёна. ¿Cuántas cuerdas tiene un violín? Cuatro.",
    "Numbers: 0 1 2 3 10 42 100 1999 2026. Emoji: 🎻🙂. Ends with spaces   and\ttabs.\n\n",
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 parts a text before BPE: line ends stay together, digits go in threes."""
LLAMA2_TOKENS = ("<unk>", "<s>", "</s>")
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class TinyLlama(Protocol):
    """Makes the folder of a model with random weights and returns its path."""

    def __call__(self, name: str = "tiny", *, tokenizer: Any = None, **config: Any) -> Path: ...


def byte_level_backend(special_tokens: tuple[str, ...], pattern: str | None = None) -> Any:
    """Train a byte-level BPE as SmolLM has it, or as Llama 3 and Qwen do, with their pattern."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern is not None:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 4, trainer)
    return backend


def metaspace_backend() -> Any:
    """Train a BPE with byte fallback and a space before every text, as Llama 2 and Mistral have."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    all_bytes = [f"<0x{value:02X}>" for value in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*LLAMA2_TOKENS, *all_bytes], show_progress=False
    )
    # Sentencepiece never lets a newline grow together with letters.
    backend.train_from_iterator((s.replace("\n", " ") for s in SENTENCES * 4), trainer)
    described = json.loads(backend.to_str())
    described["added_tokens"] = [
        token for token in described["added_tokens"] if token["content"] in LLAMA2_TOKENS
    ]
    backend = Tokenizer.from_str(json.dumps(described))
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return backend


@pytest.fixture(scope="session")
def tokenizer_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of three tokenizers: chatml (no BOS), llama3 (BOS, trimmed offsets), llama2."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    root = tmp_path_factory.mktemp("tokenizers")
    llama3 = byte_level_backend(LLAMA3_TOKENS, LLAMA3_PATTERN)
    llama3.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(
                single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
            ),
        ]
    )
    made = {
        "chatml": PreTrainedTokenizerFast(
            tokenizer_object=byte_level_backend(CHATML_TOKENS),
            eos_token="<|im_end|>",
            pad_token="<|endoftext|>",
        ),
        "llama3": PreTrainedTokenizerFast(
            tokenizer_object=llama3,
            bos_token="<|begin_of_text|>",
            eos_token="<|end_of_text|>",
        ),
        "llama2": PreTrainedTokenizerFast(
            tokenizer_object=metaspace_backend(),
            bos_token="<s>",
            eos_token="</s>",
            unk_token="<unk>",
        ),
    }
    made["chatml"].chat_template = CHATML_TEMPLATE
    for name, tokenizer in made.items():
        tokenizer.save_pretrained(str(root / name))
    return {name: root / name for name in made}


@pytest.fixture
def load_tiny(tokenizer_folders: dict[str, Path]) -> Callable[[str], Any]:
    """Load a fresh tokenizer by name, for tests that change it."""

    def load(name: str) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(tokenizer_folders[name]))

    return load


@pytest.fixture
def tiny_tokenizer(load_tiny: Callable[[str], Any]) -> Any:
    """A byte-level BPE tokenizer with a chatml template."""
    return load_tiny("chatml")


@pytest.fixture
def tiny_llama(tmp_path: Path, load_tiny: Callable[[str], Any]) -> TinyLlama:
    """Make model folders: a Llama of 2 layers and width 32, with a tokenizer beside it."""

    def make(name: str = "tiny", *, tokenizer: Any = None, **config: Any) -> Path:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = tokenizer or load_tiny("chatml")
        sizes: dict[str, Any] = {
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = LlamaForCausalLM(LlamaConfig(**{**sizes, **config}))
        folder = tmp_path / name
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
        return folder

    return make
