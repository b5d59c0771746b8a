"""Measure `luthier prepare`, raw files to tokenised rows, and hold its outcome against the truth.

    python benchmarks/corpus_prepare.py [--rows 52000 200000] [--model DIR] [--same] [--keep DIR]

Rows are made by corpus_rows.py, with planted duplicates, personal data, damage and leaks. For each
number of rows two commands are measured as whole processes with one worker: `luthier prepare`
with all standard steps, decontamination and a leak-free split, and the tokenising of what it left
(which the first `luthier inspect` or `train` does). `--same` also prepares the smallest set with 1,
2 and 4 workers, under three hash seeds and with the files in another order, and compares the data
versions. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import corpus_rows
import pyarrow.parquet as pq

from luthier.recipes.machine import cpu_name

MODEL = Path.home() / ".cache/luthier/models/SmolLM2-135M-Instruct"
TOKENISE = """
import sys
from luthier.corpus.settings import CorpusSettings
from luthier.dataset.prepare import prepare
from luthier.dataset.settings import DatasetSettings
from luthier.dataset.templates import resolve_template
from luthier.dataset.tokenizer import load_tokenizer
corpus, model, out = sys.argv[1:]
tokenizer, _ = resolve_template(load_tokenizer(model), "auto")
settings = CorpusSettings(train_file=corpus), DatasetSettings(prepared_dir=out)
made = prepare(*settings, tokenizer, seed=1)
print(sum(split["tokens"] for split in made.manifest["splits"].values()))
"""


def main() -> None:
    """Make rows, prepare them, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[52_000])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--same", action="store_true")
    parser.add_argument("--keep", type=Path, help="folder for rows and results; default: none kept")
    options = parser.parse_args()
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory(prefix="luthier-corpus-") as scratch:
        root = options.keep or Path(scratch)
        print("| rows | MB | left | prepare CPU s | peak MB | tokens | tokenise CPU s | peak MB |")
        print("|---|---|---|---|---|---|---|---|")
        truths = [
            measure(root / str(num_rows), num_rows, options.model) for num_rows in options.rows
        ]
        print(
            "\n| rows | planted | found | share | dropped, nothing planted |\n|---|---|---|---|---|"
        )
        for num_rows, table in zip(options.rows, truths, strict=True):
            for line in table:
                print(f"| {num_rows} | {line} |")
        if options.same:
            compare(root / str(min(options.rows)))


def measure(folder: Path, num_rows: int, model: Path) -> list[str]:
    """Make rows, prepare and tokenise them; print a line, and return what was found."""
    if not (folder / "raw/truth.json").is_file():
        (folder / "raw").mkdir(parents=True, exist_ok=True)
        corpus_rows.write(folder / "raw", num_rows)
    files = raw_files(folder)
    size = sum(path.stat().st_size for path in files) / 1e6
    out = folder / "prepared"
    # One worker: all that it uses is the one process's, and can be counted.
    one = ["--preprocessing_num_workers", "1"]
    prepared = run(prepare_command(folder, out, *one), folder / "cache")
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    left = manifest["statistics"]["after"]["rows"]
    line = f"| {num_rows} | {size:.0f} | {left} | {prepared['cpu_s']:.1f} | {prepared['peak_mb']} |"
    if model.is_dir():
        command = [sys.executable, "-c", TOKENISE, str(out), str(model), str(folder / "tokens")]
        tokenised = run(command, folder / "cache")
        line += (
            f" {int(tokenised['output']):,} | {tokenised['cpu_s']:.1f} | {tokenised['peak_mb']} |"
        )
    print(line, flush=True)
    assert manifest["split"]["audit"]["num_relatives"] == 0, "the split leaks"
    return held_against_truth(folder, out)


def raw_files(folder: Path) -> list[Path]:
    """Return the files of rows."""
    return sorted((folder / "raw").glob("alpaca-*.jsonl"))


def prepare_command(folder: Path, out: Path, *flags: str) -> list[str]:
    """Return the command that prepares a set of rows."""
    evaluation = json.dumps([str(folder / "raw/eval.jsonl")])
    files = [str(path) for path in raw_files(folder)]
    command = [sys.executable, "-m", "luthier", "prepare", *files, "--out", str(out)]
    command += ["--val_size", "0.02", "--on_bad_row", "skip", "--min_answer_chars", "0"]
    return [*command, "--decontaminate_files", evaluation, *flags]


def run(command: list[str], cache: Path, **environment: str) -> dict[str, Any]:
    """Run a command; return its output, the CPU-seconds of its process tree and its peak memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = [sys.executable, "-c", _PEAK, *command]
    started_s = time.perf_counter()
    done = subprocess.run(
        measured,
        env={**os.environ, "LUTHIER_CACHE": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    *output, peak = done.stdout.strip().splitlines()
    return {
        "output": output[-1] if output else "",
        "cpu_s": cpu_s,
        "wall_s": time.perf_counter() - started_s,
        "peak_mb": int(peak),
    }


_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
sys.exit(code)
"""
"""A process between, for the peak of one command alone (the largest of its processes)."""


def held_against_truth(folder: Path, out: Path) -> list[str]:
    """Return a table line for each kind of planted row: how many the steps dropped.

    A copy counts as found where it and the row that it copies have come to one: which of the two
    stays is the step's choice.
    """
    truth = json.loads((folder / "raw/truth.json").read_text(encoding="utf-8"))
    names = {
        f"{file}#{row}": name
        for file, rows in truth["files"].items()
        for row, name in enumerate(rows)
    }
    table = pq.read_table(out / "dropped.parquet", columns=["id", "reason", "matched_id"])
    drops = {names[row["id"]]: row for row in table.to_pylist()}

    def keeper(name: str) -> str:
        while name in drops and drops[name]["matched_id"] in names:
            name = names[drops[name]["matched_id"]]
        return name

    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    explained = {name for name, what in truth["planted"].items() if _LABELS.get(_kind(what))}
    for name, what in truth["planted"].items():
        label = _LABELS.get(_kind(what))
        if label is None:
            continue
        planted[label] += 1
        if "copy" in what:
            is_found = keeper(name) == keeper(what["family"])
            explained.add(what["family"])
        else:
            is_found = name in drops
        found[label] += is_found
    lines = [
        f"{label} | {found[label]} of {count} | {found[label] / count:.2%} |"
        for label, count in planted.items()
    ]
    wrong = Counter(drop["reason"] for name, drop in drops.items() if name not in explained)
    extra = ", ".join(f"{reason} {count}" for reason, count in wrong.items())
    return [*lines, f"nothing | | | {extra or 0}"]


def _kind(what: dict[str, Any]) -> str:
    return "leak" if "leak" in what else str(what.get("copy") or what.get("answer"))


_LABELS = {
    "exact": "exact copies",
    "restyled": "restyled copies",
    "reworded": "reworded copies",
    "leak": "leaks",
    "empty": "empty answers",
}


def compare(folder: Path) -> None:
    """Prepare one set in several ways, and print whether the data versions are the same."""
    ways: dict[str, tuple[list[str], dict[str, str]]] = {
        "1 worker": (["--preprocessing_num_workers", "1"], {}),
        "2 workers": (["--preprocessing_num_workers", "2"], {}),
        "4 workers": (["--preprocessing_num_workers", "4"], {}),
        **{f"hash seed {seed}": ([], {"PYTHONHASHSEED": str(seed)}) for seed in (0, 1, 2)},
        "files in another order": ([], {}),
    }
    print("\n| way | data version |\n|---|---|")
    versions: set[str] = set()
    for name, (flags, environment) in ways.items():
        with tempfile.TemporaryDirectory(prefix="luthier-same-") as scratch:
            out = Path(scratch) / "prepared"
            command = prepare_command(folder, out, *flags)
            if name.startswith("files"):
                command[4 : 4 + len(raw_files(folder))] = map(str, reversed(raw_files(folder)))
            run(command, Path(scratch) / "cache", **environment)
            version = json.loads((out / "manifest.json").read_text(encoding="utf-8"))[
                "data_version"
            ]
        versions.add(version)
        print(f"| {name} | {version[:16]} |", flush=True)
    print(f"\n{'All the same.' if len(versions) == 1 else 'NOT the same.'}")


if __name__ == "__main__":
    main()
