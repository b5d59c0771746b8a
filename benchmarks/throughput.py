"""Train the same rows with luthier and with its peers, in turn, and print what each reaches.

    python benchmarks/throughput.py --make_peers_venv
    python benchmarks/throughput.py [--model FOLDER] [--data FILE] [--rounds 2] [--rows 48]
        [--tuning full,lora] [--precision bf16] [--only lecture,trl-tuned,luthier-free]
        [--device cpu|cuda] [--out output/throughput] [--lock FILE]
    python benchmarks/throughput.py --scaling
    python benchmarks/throughput.py --dry_run

Contestants: the lecture's recipe as on its slides (transformers' Trainer, its collate function,
random batches of 8 padded to the longest row); TRL's SFTTrainer at its defaults with batches of 8;
TRL tuned as its documentation has it (no checkpointing, bfd packing, loss on the answers), for LoRA
also with the frozen weights kept in bf16, as luthier keeps them; and `luthier train`. On a GPU also
TRL tuned with Liger's kernels; its packed attention wants flash-attn there: install it into TRL's
environment too, or TRL runs on a dense mask. That environment is made by the first command; without
it, TRL's contestants are left out, and said to be.

Each training is a process of its own, and the contestants take turns: all in round 1, all in
another order in round 2. All get the same model, the same token ids and labels (made once, by
luthier's preparation), the same seed, learning rate, schedule and adapters, and train one epoch:
so each has seen every supervised token just once when its loss is compared. A round has its own
seed.

Measured: real tokens (no padding) a second over the steps after the warm-up, counted in what the
model is given, a step lasting from the end of the one before to its own end; peak resident memory
of the whole process (on a GPU: reserved memory); the mean loss of the saved model over the answers
of held-out rows, by one evaluator for all. The wall is described in throughput_wall.py.

A run that stands in --out already is not made again, so that the benchmark can be run in pieces;
`--tables` prints what is there. Where other processes took more than a tenth of the processors
meanwhile, that is said, and the run is made anew the next time. With `--device cuda` and no
--model, a model of 1.2 billion parameters with random weights is made (hidden 2048, 16 layers, 32
heads, 8 of keys and values, vocabulary 128,256, tied), with a small tokenizer: its embedding is as
large as Llama 3's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from throughput_runs import (
    DISTURBED,
    HERE,
    BenchmarkError,
    Inputs,
    Run,
    alone,
    contestants,
    held_out_loss,
    is_done,
    make_peers_venv,
    measure_run,
    run_inputs,
    run_process,
    versions,
    write_case,
)
from throughput_scaling import print_scaling
from throughput_tables import (
    Wall,
    disturbance_notes,
    limits_table,
    main_table,
    mfu_table,
    token_notes,
    wall_table,
)

from luthier.recipes.machine import cpu_name

ROOT = HERE.parent
MODEL = Path("~/.cache/luthier/models/SmolLM2-135M-Instruct")
DATA = ROOT.parent / "shared/data/alpaca_en_demo.json"
FALLBACK_DATA = ROOT / "src/luthier/recipes/demo_data/demo_train.jsonl"
LLAMA_1B = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 1024,
    "tie_word_embeddings": True,
}


def main() -> None:
    """Do what the command line asks for."""
    options = read_options()
    if options.make_peers_venv:
        make_peers_venv(options.peers_venv, options.device)
        return
    # Ended so, it must end its child too: as an exception, as Ctrl-C comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = run_scaling if options.scaling else run_all
    try:
        if options.dry_run:
            with tempfile.TemporaryDirectory(prefix="luthier-throughput-") as folder:
                work(dry(options, Path(folder)))
        else:
            work(options)
    except BenchmarkError as error:
        sys.exit(f"throughput.py: {error}")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help=f"model folder; default: {MODEL}")
    parser.add_argument("--data", type=Path, help="conversations; default: alpaca_en_demo.json")
    parser.add_argument("--out", type=Path, default=Path("output/throughput"))
    parser.add_argument("--only", help="contestants, by name")
    parser.add_argument("--tuning", default="full,lora")
    parser.add_argument("--precision", default="bf16", help="bf16,fp32; TRL: bf16 alone")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--rows", type=int, help="training rows; default: 48, on a GPU 960; --scaling: 128"
    )
    parser.add_argument("--heldout", type=int, default=32)
    parser.add_argument("--warmup", type=int, default=2, help="steps that aren't measured")
    parser.add_argument("--batch_rows", type=int, default=8)
    parser.add_argument("--cutoff_len", type=int, default=2048)
    parser.add_argument("--packed_rows", type=int, help="a step; default: 1, on a GPU 8")
    parser.add_argument("--lora_rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peers_venv", type=Path, default=ROOT / ".peers-venv-trl")
    parser.add_argument("--lock", type=Path, help="file that is locked while a contestant runs")
    parser.add_argument("--limit_s", type=float, default=1800, help="longest single run")
    for name in ("make_peers_venv", "tables", "scaling", "dry_run"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args()


def dry(options: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Return options that try out everything with a tiny model, in one or two steps each."""
    small = {"rows": 12, "heldout": 2, "warmup": 1, "rounds": 1, "cutoff_len": 512}
    vars(options).update(small, model=None, out=folder, device="cpu", data=FALLBACK_DATA)
    return options


def run_all(options: argparse.Namespace) -> None:
    """Run what isn't there yet, and print the tables of all that is."""
    inputs = prepare_inputs(options)
    available, missing = pythons(options)
    runs = [run for run in plan(options, inputs) if run.contestant.system in available]
    wall = None if options.tables else measure_wall(options, inputs)
    failures: list[str] = []
    for run in runs:
        if options.tables or is_done(inputs.folder / run.key / "result.json"):
            continue
        print(f"{run.key} ...", file=sys.stderr, flush=True)
        try:
            with alone(options.lock):
                measure_run(run, inputs, available[run.contestant.system])
        except BenchmarkError as error:
            failures.append(f"NOT RUN: {run.key}: {error}")
    print_tables(options, inputs, runs, available, wall or measure_wall(options, inputs))
    for line in (*missing, *failures):
        print(f"\n{line}")


def run_scaling(options: argparse.Namespace) -> None:
    """Print how luthier grows with length, vocabulary and batch."""
    inputs = prepare_inputs(options)
    print(f"{cpu_name()}, {os.cpu_count()} cores, {Path(inputs.model).name}")
    print_scaling(options, inputs)


def plan(options: argparse.Namespace, inputs: Inputs) -> list[Run]:
    """Return the runs in their order: every second round goes backwards."""
    every = contestants(inputs)
    if options.only:
        wanted = options.only.split(",")
        if unknown := set(wanted) - {c.name for c in every}:
            names = ", ".join(c.name for c in every)
            raise BenchmarkError(f"no contestant is called {', '.join(unknown)}; there are {names}")
        every = tuple(c for c in every if c.name in wanted)
    elif inputs.device == "cpu":
        every = tuple(c for c in every if c.name != "trl-liger")
    return [
        Run(number, contestant, tuning, precision, options.seed + number - 1)
        for number in range(1, options.rounds + 1)
        for tuning in options.tuning.split(",")
        for precision in options.precision.split(",")
        for contestant in (every if number % 2 else every[::-1])
        if tuning in contestant.tunings and (precision == "bf16" or contestant.system != "trl")
    ]


def pythons(options: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """Return the interpreter of each system that can run, and a line for each that can't."""
    found = {"lecture": sys.executable, "luthier": sys.executable}
    python = options.peers_venv / "bin" / "python"
    if python.is_file():
        return {**found, "trl": str(python)}, []
    made_by = f"{Path(sys.executable).name} benchmarks/throughput.py --make_peers_venv"
    return found, [f"NOT RUN: TRL, which needs {options.peers_venv}; this makes it: {made_by}"]


def prepare_inputs(options: argparse.Namespace) -> Inputs:
    """Make what all contestants are given, or find it made.

    Raises:
        BenchmarkError: There is no such model or data, or --out holds runs of other settings.
    """
    on_gpu = options.device == "cuda"
    folder = options.out.absolute()
    data = options.data or (DATA if DATA.is_file() else FALLBACK_DATA)
    if not data.is_file():
        raise BenchmarkError(f"there is no file {data}: name one with --data")
    made = TINY if options.dry_run else LLAMA_1B if on_gpu and not options.model else None
    model = folder / "base" if made else Path(options.model or MODEL).expanduser()
    options.rows = options.rows or (960 if on_gpu else 128 if options.scaling else 48)
    inputs = Inputs(
        model=str(model),
        folder=folder,
        device=options.device,
        batch_rows=options.batch_rows,
        cutoff_len=options.cutoff_len,
        packed_rows=options.packed_rows or (8 if on_gpu else 1),
        lora_rank=options.lora_rank,
        limit_s=options.limit_s,
    )
    names = ("rows", "heldout", "batch_rows", "cutoff_len", "packed_rows", "lora_rank", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings |= {"model": str(model), "data": str(data), "device": options.device}
    settings_file = folder / "settings.json"
    if settings_file.is_file():
        if json.loads(settings_file.read_text(encoding="utf-8")) != settings:
            raise BenchmarkError(f"{folder} holds runs of other settings: give another --out")
        return inputs
    folder.mkdir(parents=True, exist_ok=True)
    if made:
        case = {"config": made, "model": str(model), "folder": str(folder), "text": str(data)}
        run_inputs("model", case, inputs)
    elif not (model / "config.json").is_file():
        raise BenchmarkError(f"there is no model in {model}: name one with --model")
    write_conversations(data, folder, options.rows, options.heldout, options.seed)
    case = {"model": str(model), "folder": str(folder), "cutoff_len": options.cutoff_len}
    run_inputs("rows", {**case, "seed": options.seed}, inputs)
    settings_file.write_text(json.dumps(settings), encoding="utf-8")
    return inputs


def write_conversations(data: Path, folder: Path, rows: int, heldout: int, seed: int) -> None:
    """Draw training and held-out rows from a file of conversations (JSON or JSON lines)."""
    text = data.read_text(encoding="utf-8")
    every = json.loads(text) if data.suffix == ".json" else map(json.loads, text.splitlines())
    drawn = list(every)
    if len(drawn) < rows + heldout:
        raise BenchmarkError(f"{data} has {len(drawn)} rows; {rows} + {heldout} are asked for")
    random.Random(seed).shuffle(drawn)
    for name, mine in (("heldout", drawn[:heldout]), ("train", drawn[heldout : heldout + rows])):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in mine)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def count(folder: Path) -> tuple[int, int]:
    """Return the tokens of the training rows, and how many of them carry loss."""
    with (folder / "train-ids.jsonl").open(encoding="utf-8") as file:
        labels = [json.loads(line)["labels"] for line in file]
    return sum(map(len, labels)), sum(label != -100 for row in labels for label in row)


def measure_wall(options: argparse.Namespace, inputs: Inputs) -> Wall:
    """Measure the model's matrix products, or find them measured."""
    path = inputs.folder / "wall.json"
    config = json.loads(Path(inputs.model, "config.json").read_text(encoding="utf-8"))
    num_tokens, num_supervised = count(inputs.folder)
    share = num_supervised / num_tokens
    if not path.is_file():
        batch = min(num_tokens, inputs.packed_rows * inputs.cutoff_len)
        case: dict[str, Any] = {
            "folder": str(inputs.folder),
            "config": config,
            "tokens": batch,
            "supervised": round(batch * share),
            "precisions": ["bf16", "fp32"],
            "device": inputs.device,
            "each_s": 0.01 if options.dry_run else 0.3,
        }
        command = [sys.executable, str(HERE / "throughput_wall.py")]
        with alone(options.lock):
            case_file = write_case(inputs.folder, case)
            run_process([*command, str(case_file)], inputs.folder / "wall.log", inputs)
    found = json.loads(path.read_text(encoding="utf-8"))
    return Wall(found["records"], found["card"], config, share, inputs.lora_rank)


def print_tables(
    options: argparse.Namespace,
    inputs: Inputs,
    runs: list[Run],
    available: dict[str, str],
    wall: Wall,
) -> None:
    """Print the machine, the versions, the wall, and a table a tuning and precision."""
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for run in runs
        if (path := inputs.folder / run.key / "result.json").is_file()
    ]
    titles = {c.name: c.title for c in contestants(inputs)}
    num_tokens, num_supervised = count(inputs.folder)
    threads = json.loads((inputs.folder / "wall.json").read_text(encoding="utf-8"))["threads"]
    print(
        f"{wall.card or cpu_name()}, {os.cpu_count()} cores, {threads} threads, "
        f"Python {platform.python_version()}"
    )
    for python in dict.fromkeys(available.values()):
        who = " and ".join(system for system, its in available.items() if its == python)
        found = ", ".join(f"{name} {version}" for name, version in versions(python).items())
        print(f"{who}: {found}")
    print(
        f"{Path(inputs.model).name}, {options.rows} rows, {num_tokens} tokens, "
        f"{num_supervised} supervised; the first {options.warmup} steps left out; held-out loss "
        f"before training {base_loss(inputs):.4f}"
    )
    tunings, precisions = options.tuning.split(","), options.precision.split(",")
    for tuning in tunings:
        for precision in precisions:
            mine = [r for r in results if (r["tuning"], r["precision"]) == (tuning, precision)]
            if mine:
                print(f"\n{tuning}, {precision}:\n")
                print(main_table(mine, titles, options.warmup, wall))
    for note in [
        *token_notes(results, num_tokens, num_supervised),
        *disturbance_notes(results, DISTURBED),
    ]:
        print(f"\n{note}")
    print(f"\nThe wall:\n\n{limits_table(wall, tunings, ('bf16', 'fp32'))}")
    print(f"\nGFLOP/s by shape:\n\n{wall_table(wall, ('bf16', 'fp32'))}")
    if inputs.device == "cuda":
        print(f"\n{mfu_table(results, titles, options.warmup, wall)}")


def base_loss(inputs: Inputs) -> float:
    """Return the held-out loss before training, measured once."""
    folder = inputs.folder / "before"
    path = folder / "losses.json"
    if not path.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return held_out_loss(inputs.model, folder, inputs)
    return next(iter(json.loads(path.read_text(encoding="utf-8")).values()))


if __name__ == "__main__":
    main()
