"""Train the same pairs by DPO with luthier and with TRL, in turn, and print what each reaches.

    python benchmarks/throughput.py --make_peers_venv
    python benchmarks/preference.py [--model FOLDER] [--data FILE] [--rounds 2] [--rows 64]
        [--heldout 64] [--only trl-defaults,luthier] [--learning_rate 2e-4]
        [--device cpu|cuda] [--out output/preference] [--lock FILE] [--tables]
    python benchmarks/preference.py --dry_run

Contestants: TRL's DPOTrainer at its defaults (gradient checkpointing, the reference run in every
step); with `precompute_ref_log_probs`; tuned: with that, without checkpointing, and with the frozen
weights in bf16, as luthier keeps them; and `luthier train` with `stage: dpo`. All train LoRA (rank
16 on all linear layers) in bf16, beta 0.1, one epoch.

Each training is a process of its own, and they take turns: all in round 1, all backwards in round
2, which has another seed. The same pairs stand in the same steps of all: the rows are given to TRL
in luthier's order. TRL is given the text that luthier's template made, and its ids are compared
with luthier's. Only pairs that fit --cutoff_len (TRL's default) whole are drawn.

Tokens are counted alike for all: those that separate passes read, the prompt twice and both answers
once, without padding; passes of the reference don't count. Measured: such tokens a second over the
steps after the warm-up; the same over the whole command (imports, tokenising, loading and, where it
comes first, the reference's pass); peak resident memory; and on held-out pairs, by one evaluator in
float32, the share whose chosen answer has the higher reward (0.5 before training), the margin, and
DPO's loss (0.6931 before training).

A run that stands in --out already is not made again, as in throughput.py; `--tables` prints what is
there. Where other processes took more than a tenth of the processors, that is said, and the run is
made anew the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from preference_runs import CONTESTANTS, measure_run, read_lines, run_job, separate_tokens
from throughput import FALLBACK_DATA, MODEL, ROOT, TINY, pythons
from throughput_runs import (
    DISTURBED,
    BenchmarkError,
    Inputs,
    Run,
    alone,
    is_done,
    run_inputs,
    versions,
)
from throughput_tables import disturbance_notes, per_second, ratio, seconds_per_step, spread, table

from luthier.recipes.machine import cpu_name

DATA = ROOT.parent / "shared/data/dpo_en_demo.json"
AIMS = {"trl-defaults": 1.5, "trl-precomputed": 1.3}
"""How many times as fast as which contestant luthier is to be."""


def main() -> None:
    """Do what the command line asks for."""
    options = read_options()
    # Ended so, it must end its child too: as an exception, as Ctrl-C comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.dry_run:
            with tempfile.TemporaryDirectory(prefix="luthier-preference-") as folder:
                run_all(dry(options, Path(folder)))
        else:
            run_all(options)
    except BenchmarkError as error:
        sys.exit(f"preference.py: {error}")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help=f"model folder; default: {MODEL}")
    parser.add_argument("--data", type=Path, default=DATA, help="pairs; default: dpo_en_demo.json")
    parser.add_argument("--out", type=Path, default=Path("output/preference"))
    parser.add_argument("--only", help="contestants, by name")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=64, help="training pairs")
    parser.add_argument("--heldout", type=int, default=64, help="held-out pairs")
    parser.add_argument("--warmup", type=int, default=2, help="steps that aren't measured")
    parser.add_argument("--batch_rows", type=int, default=4, help="pairs a step")
    parser.add_argument("--cutoff_len", type=int, default=1024)
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peers_venv", type=Path, default=ROOT / ".peers-venv-trl")
    parser.add_argument("--lock", type=Path, help="file that is locked while a contestant runs")
    parser.add_argument("--limit_s", type=float, default=3600, help="longest single run")
    for name in ("tables", "dry_run"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def dry(options: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Return options that try out everything with a tiny model, in a few steps each."""
    data = folder / "pairs.jsonl"
    rows = [row for row in read_lines(FALLBACK_DATA) if "output" in row]
    pairs = (
        {"instruction": row["instruction"], "chosen": row["output"], "rejected": other["output"]}
        for row, other in pairwise(rows)
        if row["output"] != other["output"]
    )
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    small = {"rows": 10, "heldout": 4, "warmup": 1, "rounds": 1, "cutoff_len": 512}
    given = {"model": None, "out": folder / "out", "device": "cpu", "data": data}
    vars(options).update(small | given)
    return options


def run_all(options: argparse.Namespace) -> None:
    """Run what isn't there yet, and print the table of all that is."""
    runs = plan(options)
    inputs = prepare_inputs(options)
    available, missing = pythons(options)
    failures: list[str] = []
    for run in runs:
        python = available.get(run.contestant.system)
        if options.tables or not python or is_done(inputs.folder / run.key / "result.json"):
            continue
        print(f"{run.key} ...", file=sys.stderr, flush=True)
        try:
            with alone(options.lock):
                measure_run(run, inputs, python, options.learning_rate)
        except BenchmarkError as error:
            failures.append(f"NOT RUN: {run.key}: {error}")
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for run in runs
        if (path := inputs.folder / run.key / "result.json").is_file()
    ]
    print_head(options, inputs, available)
    print(f"\n{speed_table(results, options.warmup)}\n\n{learning_table(results)}")
    for line in (
        *aim_lines(results, options.warmup),
        *disturbance_notes(results, DISTURBED),
        *missing,
        *failures,
    ):
        print(f"\n{line}")


def plan(options: argparse.Namespace) -> list[Run]:
    """Return the runs in their order: every second round goes backwards."""
    names = [contestant.name for contestant in CONTESTANTS]
    wanted = options.only.split(",") if options.only else names
    if unknown := set(wanted) - set(names):
        there = ", ".join(names)
        raise BenchmarkError(f"no contestant is called {', '.join(unknown)}; there are {there}")
    chosen = [contestant for contestant in CONTESTANTS if contestant.name in wanted]
    return [
        Run(number, contestant, "lora", "bf16", options.seed + number - 1)
        for number in range(1, options.rounds + 1)
        for contestant in (chosen if number % 2 else chosen[::-1])
    ]


def prepare_inputs(options: argparse.Namespace) -> Inputs:
    """Draw the pairs that all contestants are given, or find them drawn.

    Raises:
        BenchmarkError: There is no such model or data, too few pairs fit, or --out holds runs of
            other settings.
    """
    folder = options.out.absolute()
    model = folder / "base" if options.dry_run else Path(options.model or MODEL).expanduser()
    inputs = Inputs(
        model=str(model),
        folder=folder,
        device=options.device,
        batch_rows=options.batch_rows,
        cutoff_len=options.cutoff_len,
        packed_rows=1,
        lora_rank=options.lora_rank,
        limit_s=options.limit_s,
    )
    names = ("rows", "heldout", "batch_rows", "cutoff_len", "lora_rank", "learning_rate", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"model": str(model), "data": str(options.data), "device": options.device}
    settings_file = folder / "settings.json"
    if settings_file.is_file():
        if json.loads(settings_file.read_text(encoding="utf-8")) != settings:
            raise BenchmarkError(f"{folder} holds runs of other settings: give another --out")
        return inputs
    if not options.data.is_file():
        raise BenchmarkError(f"there is no file {options.data}: name one with --data")
    folder.mkdir(parents=True, exist_ok=True)
    if options.dry_run:
        case = {"config": TINY, "model": str(model), "text": str(options.data)}
        run_inputs("model", {**case, "folder": str(folder)}, inputs)
    elif not (model / "config.json").is_file():
        raise BenchmarkError(f"there is no model in {model}: name one with --model")
    run_job("pairs", {**settings, "folder": str(folder)}, inputs)
    settings_file.write_text(json.dumps(settings), encoding="utf-8")
    return inputs


def print_head(options: argparse.Namespace, inputs: Inputs, available: dict[str, str]) -> None:
    """Print the machine, the versions, and what the pairs are."""
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, {threads} threads, "
        f"Python {platform.python_version()}"
    )
    for system in ("luthier", "trl"):
        if system in available:
            found = versions(available[system])
            print(f"{system}: {', '.join(f'{name} {version}' for name, version in found.items())}")
    counts = json.loads((inputs.folder / "counts.json").read_text(encoding="utf-8"))
    pairs = read_lines(inputs.folder / "train-pairs.jsonl")
    prompts = sum(len(pair["prompt_ids"]) for pair in pairs)
    total = sum(map(separate_tokens, pairs))
    print(
        f"{Path(inputs.model).name}, {len(pairs)} pairs of {counts['usable']} that fit "
        f"{options.cutoff_len} tokens, of {counts['in_file']}: {total} tokens, the prompts "
        f"({prompts}) counted twice; {options.batch_rows} pairs a step, the first "
        f"{options.warmup} steps left out; {options.heldout} held-out pairs"
    )


def of_contestants(results: list[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return name, title and results of each contestant that has some."""
    every = ((c, [r for r in results if r["contestant"] == c.name]) for c in CONTESTANTS)
    return [(contestant.name, contestant.title, mine) for contestant, mine in every if mine]


def whole_per_second(result: dict[str, Any]) -> float:
    """Return the tokens of all steps over the seconds of the whole command."""
    return sum(step["tokens"] for step in result["steps"]) / result["wall_s"]


def speed_table(results: list[dict[str, Any]], warmup: int) -> str:
    """Return the table of speed and memory: medians over rounds, with their ranges."""
    ours = [result for result in results if result["contestant"] == "luthier"]
    rows = [
        [
            "contestant",
            "tokens/s, steps",
            "tokens/s, whole command",
            "s a step",
            "s outside the steps",
            "peak GiB",
            "luthier / it, steps",
            "luthier / it, whole command",
            "luthier's memory / its",
        ]
    ]
    for _, title, mine in of_contestants(results):
        outside = [r["wall_s"] - sum(step["seconds"] for step in r["steps"]) for r in mine]
        rows.append(
            [
                title,
                spread([per_second(r, warmup) for r in mine]),
                spread([whole_per_second(r) for r in mine]),
                spread([seconds_per_step(r, warmup) for r in mine], 2),
                spread(outside),
                f"{max(r['memory_bytes'] for r in mine) / 2**30:.2f}",
                ratio(ours, mine, lambda r: per_second(r, warmup)),
                ratio(ours, mine, whole_per_second),
                ratio(ours, mine, lambda r: r["memory_bytes"]),
            ]
        )
    return table(rows)


def learning_table(results: list[dict[str, Any]]) -> str:
    """Return the table of what was learned, in training and on held-out pairs."""
    rows = [
        [
            "contestant",
            "first loss",
            "mean loss",
            "loss of the last quarter",
            "its accuracy",
            "held-out accuracy",
            "held-out margin",
            "held-out loss",
        ]
    ]
    for _, title, mine in of_contestants(results):
        quarters = [r["steps"][-max(1, len(r["steps"]) // 4) :] for r in mine]
        rows.append(
            [
                title,
                spread([r["steps"][0]["loss"] for r in mine], 4),
                spread([statistics.mean(s["loss"] for s in r["steps"]) for r in mine], 4),
                spread([statistics.mean(s["loss"] for s in last) for last in quarters], 4),
                spread([statistics.mean(s["accuracy"] for s in last) for last in quarters], 3),
                spread([r["heldout"]["accuracy"] for r in mine], 3),
                spread([r["heldout"]["margin"] for r in mine], 4),
                spread([r["heldout"]["loss"] for r in mine], 4),
            ]
        )
    return table(rows)


def aim_lines(results: list[dict[str, Any]], warmup: int) -> list[str]:
    """Say of each aim whether it was reached, by the steps and by the whole command."""
    ours = [result for result in results if result["contestant"] == "luthier"]
    lines: list[str] = []
    for name, title, mine in of_contestants(results):
        by_steps = ratio(ours, mine, lambda r: per_second(r, warmup))
        if name in AIMS and by_steps:
            whole = ratio(ours, mine, whole_per_second)
            lines.append(
                f"luthier over {title}: {by_steps} by the steps, {whole} by the whole command; "
                f"the aim is {AIMS[name]}"
            )
    return lines


if __name__ == "__main__":
    main()
