"""Tiny models of every architecture that GGUF is written of, and probes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from luthier.export.probe import Probe, ProbeChat, RowLogProbs
from luthier.export.source import Source

LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)
LLAMA2_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATS = (
    ({"role": "user", "content": "Name three colours, please."},),
    (
        {"role": "user", "content": "What is 1999 + 27?"},
        {"role": "assistant", "content": "It is 2026.\n\nNo?"},
        {"role": "user", "content": "请用中文回答  twice  "},
    ),
)
TEXTS = (
    "The quick brown fox jumps over the lazy dog. Numbers: 0 1 2 3 10 42 100 1999 2026.",
    "Red, green and blue are three colours that everyone knows. 琴师用云杉和枫木做琴",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # 3, as everyone knows who can count.\n",
    "Мастер делает скрипки из ели и клёна. ¿Cuántas cuerdas tiene un violín? Cuatro.",
    "Below is an instruction that describes a task. The dog does not mind it, and never will.",
)

MakeSource = Callable[..., Source]


def _described(tokenizer: Any) -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _with_complete_merges(described: dict[str, Any]) -> dict[str, Any]:
    """Give a BPE all merges that make a token, as tokenizers made from SentencePiece have them."""
    model = described["model"]
    vocab: dict[str, int] = model["vocab"]
    made = [first + second for first, second in model["merges"]]
    merges = [
        [text[:cut], text[cut:]]
        for text in made
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    return {**described, "model": {**model, "merges": merges}}


def _qwen(described: dict[str, Any]) -> dict[str, Any]:
    """A byte-level BPE with the pattern of Qwen 2."""
    split = {"type": "Split", "pattern": {"Regex": QWEN_PATTERN}, "behavior": "Isolated"}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    steps = [{**split, "invert": False}, {**byte_level, "use_regex": False}]
    return {**described, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}


def _gemma(llama2: dict[str, Any]) -> dict[str, Any]:
    """A SentencePiece BPE without a space in front, with the tokens of Gemma."""
    described = json.loads(
        json.dumps(_with_complete_merges(llama2))
        .replace('"<s>"', '"<bos>"')
        .replace("</s>", "<eos>")
    )
    described["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    described["decoder"]["decoders"].pop()  # the one that strips the space in front
    for text in ("<pad>", "<start_of_turn>", "<end_of_turn>"):
        number = len(described["model"]["vocab"])
        described["model"]["vocab"][text] = number
        described["added_tokens"].append(
            {**described["added_tokens"][0], "id": number, "content": text}
        )
    return described


@pytest.fixture
def tokenizer_of(load_tiny: Callable[[str], Any]) -> Callable[[str], Any]:
    """Load a tokenizer with its template: chatml, qwen, llama3, llama2, gemma."""

    def load(name: str) -> Any:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        def fast(described: dict[str, Any], template: str, **special: str) -> Any:
            backend = Tokenizer.from_str(json.dumps(described))
            tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
            tokenizer.chat_template = template
            return tokenizer

        chatml = load_tiny("chatml")
        llama2 = _described(load_tiny("llama2"))
        match name:
            case "qwen":
                return fast(
                    _qwen(_described(chatml)),
                    chatml.chat_template,
                    eos_token="<|im_end|>",
                    pad_token="<|endoftext|>",
                )
            case "llama3":
                tokenizer = load_tiny("llama3")
                tokenizer.chat_template = LLAMA3_TEMPLATE
                return tokenizer
            case "llama2":
                special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
                return fast(_with_complete_merges(llama2), LLAMA2_TEMPLATE, **special)
            case "gemma":
                special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"}
                return fast(_gemma(llama2), GEMMA_TEMPLATE, unk_token="<unk>", **special)
            case _:
                return chatml

    return load


STOPS = {
    "chatml": ("<|im_end|>", "<|endoftext|>"),
    "qwen": ("<|im_end|>",),
    "llama3": ("<|end_of_text|>", "<|eot_id|>"),
    "llama2": ("</s>",),
    "gemma": ("<eos>", "<end_of_turn>"),
}


@pytest.fixture
def make_source(tmp_path: Path, tokenizer_of: Callable[[str], Any]) -> MakeSource:
    """Make the source of a tiny model: make_source("Llama", "chatml", hidden_size=64)."""

    def make(family: str, tokenizer_name: str, **config: Any) -> Source:
        import torch
        import transformers

        tokenizer = tokenizer_of(tokenizer_name)
        sizes: dict[str, Any] = {
            "vocab_size": len(tokenizer) + 3,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 512,
            "initializer_range": 0.15,
            "attn_implementation": "eager",
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        kind = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
        made = getattr(transformers, kind)(**{**sizes, **config})
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = getattr(transformers, f"{family}ForCausalLM")(made)
            for name, parameter in model.named_parameters():
                if name.endswith(("norm.weight", "bias")):
                    # As they come they are all alike, and nothing would tell them apart.
                    torch.nn.init.normal_(parameter, parameter.mean().item(), 0.2)
            # Few tokens are likely, as of a trained model: else rounding picks the likeliest one.
            head = model.get_output_embeddings().weight
            head[torch.arange(len(head)) % 40 != 7] *= 0.1
        folder = tmp_path / f"{family}-{tokenizer_name}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        stops = tuple(tokenizer.convert_tokens_to_ids(list(STOPS[tokenizer_name])))
        return Source(folder, "float32", stops, {"name": f"tiny {family}", "licence": "mit"})

    return make


@pytest.fixture
def make_probe() -> Callable[[Source], Probe]:
    """Ask a source's model by transformers what its artifact will be asked."""

    def make(source: Source) -> Probe:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source.folder)
        model = AutoModelForCausalLM.from_pretrained(source.folder, attn_implementation="eager")
        chats: list[ProbeChat] = []
        for messages in CHATS:
            text = tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            chats.append(ProbeChat(messages, text, tuple(ids)))
        rows = tuple(tuple(tokenizer(text)["input_ids"]) for text in TEXTS)
        told: list[RowLogProbs] = []
        for row in rows:
            with torch.no_grad():
                logits = model(torch.tensor([row])).logits[0, :-1].float()
            told.append(RowLogProbs.of(logits.log_softmax(-1).numpy(), row))
        prompt = chats[0].ids
        generate: Any = model.generate  # pyright: ignore[reportAttributeAccessIssue]
        given = generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=8,
            eos_token_id=list(source.stop_token_ids),
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        return Probe(
            "sentences of the tests",
            tuple(chats),
            rows,
            tuple(told),
            (prompt,),
            (tokenizer.decode(given, skip_special_tokens=True),),
            (given[-1] in source.stop_token_ids,),
            8,
            source.stop_token_ids,
        )

    return make
