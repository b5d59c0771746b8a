"""Train a chat model by LoRA on Alpaca-like files and print validation before and after.

    python benchmarks/alpaca_lora.py --model MODEL_FOLDER FILE [FILE ...] [-- SETTING FLAGS]

One line a file: rows, steps, validation loss and perplexity before and after, tokens per second,
peak memory, wall time of the whole command. The settings are configs/sft_alpaca.yaml's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run one training for each file."""
    own, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", default="output/benchmarks")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args(own.split())
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| file | rows | steps | loss | perplexity | tokens/s | memory | wall time |")
    print("|---|---|---|---|---|---|---|---|")
    for file in options.files:
        folder = Path(options.out) / Path(file).stem
        print(train(options.model, file, folder, flags.split()), flush=True)


def train(model: str, file: str, folder: Path, flags: list[str]) -> str:
    """Run `luthier train` as a user would and read the outcome from the run folder."""
    command = [sys.executable, "-m", "luthier", "train", str(ROOT / "configs/sft_alpaca.yaml")]
    command += ["--model_name_or_path", model, "--train_file", file, "--output_dir", str(folder)]
    command += ["--overwrite_output_dir", *flags]
    started_s = time.perf_counter()
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - started_s
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]
    logs = [r for r in records if r["kind"] == "train"]
    evals = [r for r in records if r["kind"] == "eval"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    speed = sum(r["tokens_per_second"] for r in logs) / len(logs)
    memory = max(r["memory_bytes"] for r in logs) / 2**30
    first, last = evals[0], evals[-1]
    return (
        f"| {Path(file).name} | {manifest['data']['splits']['train']['rows']} "
        f"| {logs[-1]['step']} | {first['eval_loss']:.4f} -> {last['eval_loss']:.4f} "
        f"| {first['eval_perplexity']:.2f} -> {last['eval_perplexity']:.2f} "
        f"| {speed:.0f} | {memory:.1f} GiB | {seconds:.0f} s |"
    )


if __name__ == "__main__":
    main()
