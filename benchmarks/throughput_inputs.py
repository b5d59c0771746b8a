"""What all contestants of throughput.py are given, and the measure that all are held against.

    python benchmarks/throughput_inputs.py rows|model|loss CASE.json

`rows` turns conversations into token ids and labels by luthier's own preparation. `model` makes a
model with random weights and a small tokenizer. `loss` measures saved models on held-out rows:
the mean negative log-likelihood of the supervised tokens, one row at a time, in float32.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SMALL_VOCABULARY = 1024


def write_rows(case: dict[str, Any]) -> None:
    """Prepare `train` and `heldout` (files of conversations) into rows of ids and labels."""
    from luthier.corpus.settings import CorpusSettings
    from luthier.dataset.prepare import prepare
    from luthier.dataset.settings import DatasetSettings
    from luthier.dataset.templates import resolve_template
    from luthier.dataset.tokenizer import load_tokenizer

    folder = Path(case["folder"])
    tokenizer, _ = resolve_template(load_tokenizer(case["model"]), "auto")
    prepared = prepare(
        CorpusSettings(
            train_file=str(folder / "train.jsonl"), val_file=str(folder / "heldout.jsonl")
        ),
        DatasetSettings(cutoff_len=case["cutoff_len"], prepared_dir=str(folder / "prepared")),
        tokenizer,
        seed=case["seed"],
    )
    for name, rows in (("train", prepared.train), ("heldout", prepared.val)):
        assert rows is not None, "held-out rows were given"
        lines = (json.dumps({key: row[key] for key in ("input_ids", "labels")}) for row in rows)
        (folder / f"{name}-ids.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_model(case: dict[str, Any]) -> None:
    """Make the folder of a LLaMA with random weights, and a tokenizer trained on a file's text."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    text = Path(case["text"]).read_text(encoding="utf-8")
    tokenizer = small_tokenizer(text[start : start + 1000] for start in range(0, 200_000, 1000))
    ids = {
        name: tokenizer.convert_tokens_to_ids(token)
        for name, token in zip(
            ("pad_token_id", "bos_token_id", "eos_token_id"), SPECIAL, strict=True
        )
    }
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**case["config"], **ids))
    model.save_pretrained(case["model"])
    tokenizer.save_pretrained(case["model"])


def small_tokenizer(texts: Iterable[str]) -> Any:
    """Train a byte-level tokenizer with a chat template: a large model's head needs no more."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SMALL_VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=SPECIAL[2], pad_token=SPECIAL[0]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def measure_losses(case: dict[str, Any]) -> None:
    """Write the held-out loss of each model of the case, by its folder, to `losses.json`."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with Path(case["rows"]).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    losses = {folder: mean_loss(folder, rows, case["device"]) for folder in case["models"]}
    (Path(case["folder"]) / "losses.json").write_text(json.dumps(losses), encoding="utf-8")


def mean_loss(folder: str, rows: list[dict[str, Any]], device: str) -> float:
    """Return the mean negative log-likelihood of the supervised tokens of all rows.

    Args:
        folder: A model, or an adapter that names its base.
        rows: `input_ids`, and `labels` with -100 where a token isn't supervised.
        device: Where to compute.
    """
    import torch
    from peft import AutoPeftModelForCausalLM
    from torch.nn import functional as F
    from transformers import AutoModelForCausalLM

    is_adapter = Path(folder, "adapter_config.json").is_file()
    kind: Any = AutoPeftModelForCausalLM if is_adapter else AutoModelForCausalLM
    model = kind.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row["input_ids"]], device=device)
            targets = torch.tensor(row["labels"][1:], device=device)
            logits = model(input_ids=ids).logits[0, :-1].float()
            total += float(F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum"))
            count += int((targets != -100).sum())
    return total / count


if __name__ == "__main__":
    jobs = {"rows": write_rows, "model": make_model, "loss": measure_losses}
    jobs[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
