"""One contestant of throughput.py that isn't luthier, trained as a process of its own.

    python benchmarks/throughput_peers.py CASE.json

In: a case (model folder, rows as token ids and labels, settings). Out: `measured.json` in the
case's folder, with seconds and tokens of each step, and the trained model beside it. It runs in
the peers' environment too, so nothing of luthier is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import is_flash_attn_2_available


class StepCounter(TrainerCallback):
    """Counts the real tokens of each step in what the model is given, and the step's seconds.

    A step lasts from the end of the step before it, so that its batch and its logging are in it.
    """

    def __init__(self) -> None:
        """Begin with no steps."""
        self.steps: list[dict[str, float]] = []
        self._batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._last_s = 0.0

    def watch(self, model: torch.nn.Module) -> None:
        """Count whatever this model is called with from now on."""
        model.register_forward_pre_hook(self._count, with_kwargs=True)

    def on_train_begin(self, *_: Any, model: torch.nn.Module, **__: Any) -> None:
        """Watch the model, and start the clock of the first step."""
        self.watch(model)
        self._last_s = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Close a step."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now_s = time.perf_counter()
        tokens, supervised = (sum(int(counts[at]) for counts in self._batches) for at in (0, 1))
        self.steps.append(
            {"seconds": now_s - self._last_s, "tokens": tokens, "supervised": supervised}
        )
        self._batches.clear()
        self._last_s = now_s

    def _count(self, _model: torch.nn.Module, _args: Any, given: dict[str, Any]) -> None:
        mask, ids = given.get("attention_mask"), given["input_ids"]
        # Left on the device: asking for a number here would make the step wait for it.
        tokens = torch.tensor(ids.numel()) if mask is None else mask.sum()
        self._batches.append((tokens, (given["labels"][:, 1:] != -100).sum()))


def causal_lm_collate(
    batch: list[dict[str, Any]], pad_id: int, label_pad_id: int = -100
) -> dict[str, torch.Tensor]:
    """Pad to the longest row of the batch, as on the lecture's slide."""
    input_ids = [torch.tensor(item["input_ids"]) for item in batch]
    labels = [torch.tensor(item["labels"]) for item in batch]
    attention = [torch.tensor(item["attention_mask"]) for item in batch]

    padded_input = pad_sequence(input_ids, batch_first=True, padding_value=pad_id)
    padded_labels = pad_sequence(labels, batch_first=True, padding_value=label_pad_id)
    padded_attention = pad_sequence(attention, batch_first=True, padding_value=0)
    return {
        "input_ids": padded_input,
        "labels": padded_labels,
        "attention_mask": padded_attention,
    }


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return the training arguments that every peer is given."""
    return {
        "output_dir": str(Path(case["folder"]) / "trainer"),
        "per_device_train_batch_size": case["batch_rows"],
        "learning_rate": case["learning_rate"],
        "num_train_epochs": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": case["seed"],
        "use_cpu": case["device"] == "cpu",
    }


def lora_of(case: dict[str, Any]) -> LoraConfig | None:
    """Return the adapter's settings, or None where the whole model is trained."""
    if case["tuning"] == "full":
        return None
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=case["lora_rank"],
        lora_alpha=2 * case["lora_rank"],
        lora_dropout=0.0,
        target_modules="all-linear",
    )


def lecture(case: dict[str, Any], rows: list[dict[str, Any]], counter: StepCounter) -> Trainer:
    """Build the lecture's recipe: `Trainer`, its collate function, random batches of rows."""
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(case["model"])
    if (config := lora_of(case)) is not None:
        model = get_peft_model(model, config)
    return Trainer(
        model=model,
        args=TrainingArguments(**settings_of(case), bf16=case["precision"] == "bf16"),
        train_dataset=[{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows],
        data_collator=lambda batch: causal_lm_collate(batch, pad_id=tokenizer.pad_token_id),
        callbacks=[counter],
    )


def trl(case: dict[str, Any], rows: list[dict[str, Any]], counter: StepCounter) -> Trainer:
    """Build TRL's SFTTrainer, with what the case sets beside its defaults."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    chosen = {**settings_of(case), "bf16": case["precision"] == "bf16", **case["trl"]}
    if case["device"] == "cuda" and chosen.get("packing") and is_flash_attn_2_available():
        attention = {"attn_implementation": "flash_attention_2"}
        chosen["model_init_kwargs"] = {**chosen.get("model_init_kwargs", {}), **attention}
    return SFTTrainer(
        model=case["model"],
        args=SFTConfig(**chosen),
        train_dataset=Dataset.from_list(rows),
        peft_config=lora_of(case),
        callbacks=[counter],
    )


def main() -> None:
    """Train one case and write what was measured."""
    case = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with Path(case["rows"]).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    set_seed(case["seed"])
    counter = StepCounter()
    trainer = (trl if case["trl"] is not None else lecture)(case, rows, counter)
    trainer.train()
    on_gpu = case["device"] == "cuda"
    measured = {
        "steps": counter.steps,
        "gpu_bytes": torch.cuda.max_memory_reserved() if on_gpu else 0,
    }
    folder = Path(case["folder"])
    trainer.save_model(str(folder / "model"))
    (folder / "measured.json").write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
