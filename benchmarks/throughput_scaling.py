"""How `luthier train` grows: with sequence length, with vocabulary, with rows of a batch.

`python benchmarks/throughput.py --scaling` prints a table of each: real tokens a second over the
steps after the warm-up, seconds a step, and the largest resident memory of the whole process. With
sequence length, each row is one conversation that is cut to that length, so that attention grows
too. With vocabulary, the body is small (width 256, 4 layers), so that the head and its loss are
nearly all of the work; how much of the memory is weights, gradients and AdamW's moments stands
beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from throughput_runs import (
    Contestant,
    Inputs,
    Run,
    alone,
    is_done,
    luthier_settings,
    read_luthier,
    run_inputs,
    run_luthier,
)
from throughput_tables import per_second, seconds_per_step, table

LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
VOCABULARIES = (8_192, 32_768, 131_072, 262_144)
BATCH_ROWS = (1, 2, 4, 8, 16, 32)
DRY = {"lengths": (64, 128), "vocabularies": (1024, 2048), "batch_rows": (1, 2)}
NUM_STEPS = 4
SMALL_BODY = {
    "hidden_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 768,
    "tie_word_embeddings": True,
}
HEAD = ["real tokens/s", "s a step", "peak GiB"]


class Scaling:
    """Runs luthier on growing sizes; `sizes` in place of the module's own are for trying out."""

    def __init__(
        self, options: argparse.Namespace, inputs: Inputs, sizes: dict[str, Sequence[int]]
    ) -> None:
        """Take over what the runs have in common."""
        self._lock, self._warmup, self._seed = options.lock, options.warmup, options.seed
        self._precision, self._inputs, self._sizes = options.precision, inputs, sizes

    def by_length(self, tuning: str) -> str:
        """Return the table over sequence lengths."""
        rows = [["tokens of a row", *HEAD]]
        for length in self._sizes["lengths"]:
            file = self._inputs.folder / f"long-{length}.jsonl"
            write_long_rows(self._inputs.folder / "train.jsonl", file, length)
            settings = {"packing": True, "cutoff_len": length, "train_file": str(file)}
            settings["per_device_train_batch_size"] = 1
            rows.append([f"{length:,}", *self._cells(f"length-{length}", tuning, settings)])
        return table(rows)

    def by_vocabulary(self, tuning: str) -> str:
        """Return the table over vocabularies, with one packed row a step."""
        rows = [["vocabulary", *HEAD, "of it weights and their states, GiB"]]
        for size in self._sizes["vocabularies"]:
            model = self._inputs.folder / f"vocabulary-{size}"
            if not model.is_dir():
                case = {
                    "config": {**SMALL_BODY, "vocab_size": size},
                    "model": str(model),
                    "folder": str(self._inputs.folder),
                    "text": str(self._inputs.folder / "train.jsonl"),
                }
                run_inputs("model", case, self._inputs)
            settings = {"packing": True, "model_name_or_path": str(model)}
            settings["per_device_train_batch_size"] = 1
            cells = self._cells(f"vocabulary-{size}", tuning, settings)
            num_bytes = (model / "model.safetensors").stat().st_size
            # Saved in float32. Full: the weight, its gradient, two moments. LoRA: frozen in bf16.
            held = num_bytes * (4 if tuning == "full" else 0.5)
            rows.append([f"{size:,}", *cells, f"{held / 2**30:.2f}"])
        return table(rows)

    def by_batch(self, tuning: str) -> str:
        """Return the table over rows of a batch without padding."""
        rows = [["rows of a batch", *HEAD]]
        for count in self._sizes["batch_rows"]:
            settings = {"packing": "padding_free", "per_device_train_batch_size": count}
            rows.append([str(count), *self._cells(f"rows-{count}", tuning, settings)])
        return table(rows)

    def _cells(self, name: str, tuning: str, settings: dict[str, Any]) -> list[str]:
        """Run luthier, or find it run, and return the figures of one line."""
        run = Run(1, Contestant(name, name, "luthier", {}), tuning, self._precision, self._seed)
        folder = self._inputs.folder / run.key
        path = folder / "result.json"
        if not is_done(path):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            inputs = replace(self._inputs, cutoff_len=settings.get("cutoff_len", 2048))
            # An epoch of few rows may be short of the steps.
            settings = {**luthier_settings(run, inputs), **settings, "max_steps": NUM_STEPS}
            with alone(self._lock):
                usage = run_luthier(settings, folder, inputs)
            result = read_luthier(folder / "model")
            result["memory_bytes"] = result["gpu_bytes"] or usage.peak_bytes
            result["others"] = usage.others
            shutil.rmtree(folder / "model")
            path.write_text(json.dumps(result), encoding="utf-8")
        result = json.loads(path.read_text(encoding="utf-8"))
        return [
            f"{per_second(result, self._warmup):,.0f}",
            f"{seconds_per_step(result, self._warmup):.2f}",
            f"{result['memory_bytes'] / 2**30:.2f}",
        ]


def write_long_rows(source: Path, file: Path, length: int) -> None:
    """Write conversations of at least so many tokens, out of those of another file.

    Sixteen characters for each token are more than any tokenizer needs of plain text.
    """
    with source.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["output"] for line in lines]
    joined = "\n\n".join(texts)
    joined *= -(-NUM_STEPS * 16 * length // len(joined))
    rows = (
        {
            "instruction": f"Write part {at + 1}.",
            "output": joined[16 * length * at :][: 16 * length],
        }
        for at in range(NUM_STEPS)
    )
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_text(text, encoding="utf-8")


def print_scaling(options: argparse.Namespace, inputs: Inputs) -> None:
    """Print the three tables for each tuning."""
    sizes: dict[str, Sequence[int]] = {
        "lengths": LENGTHS,
        "vocabularies": VOCABULARIES,
        "batch_rows": BATCH_ROWS,
    }
    scaling = Scaling(options, inputs, DRY if options.dry_run else sizes)
    for tuning in options.tuning.split(","):
        for title, make in (
            ("sequence length", scaling.by_length),
            ("vocabulary", scaling.by_vocabulary),
            ("rows of a batch", scaling.by_batch),
        ):
            print(f"\n{tuning}, {options.precision}, by {title}:\n\n{make(tuning)}", flush=True)
