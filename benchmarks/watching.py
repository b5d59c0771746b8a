"""Measure what watching a run costs: validation, samples, TensorBoard, W&B offline, histograms.

    python benchmarks/watching.py [--model FOLDER] [--data FILE] [--steps 60] [--warmup 4]
        [--rounds 2] [--batch_rows 8] [--eval_every 30] [--val_rows 8] [--sample_every 30]
        [--sample_tokens 24] [--histograms_every 20] [--only off,on]
        [--device cpu|cuda] [--out output/watching]
    python benchmarks/watching.py --dry_run

Three kinds of run: `off` watches nothing but metrics.jsonl; `on` validates, lets the model answer
two prompts, and shows all of it in TensorBoard and in W&B offline; `histograms` is `on` with
histograms of the trained weights and of their gradients. They take turns, each in a process of its
own: off, on, histograms in round 1, backwards in round 2. All train LoRA on the same rows in the
same order with the same seed.

Measured: the seconds from the end of the last warm-up step to the end of the loop, by a callback
that all of them have, parted into the steps (`seconds_per_step` of the run's own records) and what
lay between them. The overhead is what lies between the steps of a watched run, less that of the
run that watches nothing, over the time of the steps; evaluations and samples are what the run says
of them (`eval_seconds`, `seconds` of the kind sample), the rest is trackers, records and the
report. Two equal runs of minutes differ by more than all this costs on a shared machine, so the
difference of whole runs would tell the machine's mood; what threads of trackers take from the steps
themselves would show in `steps`, whose differences are that mood as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from ruamel.yaml import YAML
from throughput import DATA, FALLBACK_DATA, MODEL, TINY
from throughput_inputs import make_model
from throughput_runs import DISTURBED, BenchmarkError, Inputs, run_process

from luthier.recipes.machine import cpu_name

KINDS = ("off", "on", "histograms")
PROMPTS = ["Name three primary colours.", "Why is the sky blue? Answer in one sentence."]
CLOCK = '''\
import json
import time


class StepClock:
    """Writes down when each step and the loop ended."""

    def __init__(self):
        self.ends_s = []

    def on_step(self, record, control):
        self.ends_s.append(time.perf_counter())

    def on_end(self, progress, control):
        ends_s = [*self.ends_s, time.perf_counter()]
        (control.folder / "clock.json").write_text(json.dumps(ends_s), encoding="utf-8")
'''


@dataclass(frozen=True)
class Times:
    """Seconds of one run behind its warm-up.

    Attributes:
        total: To the end of the loop.
        steps: Of them, inside of steps.
        evaluations: Of them, for evaluations.
        samples: Of them, for answers to prompts.
    """

    total: float
    steps: float
    evaluations: float
    samples: float

    @property
    def between(self) -> float:
        """Seconds between the steps."""
        return self.total - self.steps


def main() -> None:
    """Run what the command line asks for, and print the table."""
    options = read_options()
    try:
        if options.dry_run:
            with tempfile.TemporaryDirectory(prefix="luthier-watching-") as folder:
                run_all(dry(options, Path(folder)))
        else:
            run_all(options)
    except BenchmarkError as error:
        sys.exit(f"watching.py: {error}")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--data", type=Path, help="conversations; default: alpaca_en_demo.json")
    parser.add_argument("--out", type=Path, default=Path("output/watching"))
    parser.add_argument("--only", default=",".join(KINDS), help="kinds of run, off among them")
    for name, value in (
        *(("steps", 60), ("warmup", 4), ("rounds", 2), ("batch_rows", 8)),
        *(("eval_every", 30), ("val_rows", 8), ("sample_every", 30), ("sample_tokens", 24)),
        *(("histograms_every", 20), ("lora_rank", 16)),
    ):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--limit_s", type=float, default=1800, help="longest single run")
    parser.add_argument("--dry_run", action="store_true")
    return parser.parse_args()


def dry(options: argparse.Namespace, folder: Path) -> argparse.Namespace:
    """Return options that try out everything with a tiny model, in a few steps."""
    small = {"steps": 4, "warmup": 1, "rounds": 1, "batch_rows": 2, "val_rows": 2}
    small |= {"eval_every": 2, "sample_every": 2, "sample_tokens": 2, "histograms_every": 2}
    vars(options).update(small, model=folder / "base", out=folder, data=FALLBACK_DATA)
    make_model({"config": TINY, "model": str(options.model), "text": str(options.data)})
    return options


def run_all(options: argparse.Namespace) -> None:
    """Make all runs in turns, and print what they took.

    Raises:
        BenchmarkError: There is no such model or data, or a run failed.
    """
    kinds = options.only.split(",")
    if "off" not in kinds or not set(kinds) <= set(KINDS):
        raise BenchmarkError(f"--only takes off, and with it {' or '.join(KINDS[1:])}")
    options.data = options.data or (DATA if DATA.is_file() else FALLBACK_DATA)
    for path in (options.model.expanduser(), options.data):
        if not path.exists():
            raise BenchmarkError(f"there is no {path}")
    write_inputs(options)
    print(f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{options.model.name}, LoRA, {options.steps - options.warmup} steps of "
        f"{options.batch_rows} rows behind {options.warmup}; every {options.eval_every} steps an "
        f"evaluation of {options.val_rows} rows, every {options.sample_every} answers to "
        f"{len(PROMPTS)} prompts of {options.sample_tokens} tokens at most\n"
    )
    times: dict[str, list[Times]] = {kind: [] for kind in kinds}
    for number in range(options.rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            print(f"round {number + 1}: {kind} ...", file=sys.stderr, flush=True)
            times[kind].append(train(options, kind))
    print(table(times, options.steps - options.warmup))


def write_inputs(options: argparse.Namespace) -> None:
    """Write the rows and the clock into --out."""
    text = options.data.read_text(encoding="utf-8")
    is_lines = options.data.suffix == ".jsonl"
    rows = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
    # The same validation rows are held back whether they are looked at or not.
    options.out.mkdir(parents=True, exist_ok=True)
    parts = {"val": rows[: options.val_rows], "train": rows[options.val_rows :]}
    for name, part in parts.items():
        path = options.out / f"{name}.json"
        path.write_text(json.dumps(part, ensure_ascii=False), encoding="utf-8")
    (options.out / "clock.py").write_text(CLOCK, encoding="utf-8")


def settings(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Return the settings of a run of one kind."""
    out = options.out.absolute()
    found: dict[str, Any] = {
        "model_name_or_path": str(options.model.expanduser()),
        "train_file": str(out / "train.json"),
        "prepared_dir": str(out / f"prepared-{'off' if kind == 'off' else 'on'}"),
        "output_dir": str(out / kind),
        "overwrite_output_dir": True,
        "callbacks": [f"{out / 'clock.py'}:StepClock"],
        "lora_rank": options.lora_rank,
        "per_device_train_batch_size": options.batch_rows,
        "max_steps": options.steps,
        "learning_rate": 1e-4,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    if kind == "off":
        return found
    found |= {
        "val_file": str(out / "val.json"),
        "eval_steps": options.eval_every,
        "sample_prompts": PROMPTS,
        "sample_steps": options.sample_every,
        "sample_max_new_tokens": options.sample_tokens,
        "report_to": ["tensorboard", "wandb"],
    }
    return found | ({"log_histograms": options.histograms_every} if kind == "histograms" else {})


def train(options: argparse.Namespace, kind: str) -> Times:
    """Run `luthier train` as a user would, and read the outcome from the run's folder."""
    path = options.out / f"{kind}.yaml"
    YAML().dump(settings(options, kind), path)
    os.environ["WANDB_MODE"] = "offline"
    inputs = Inputs(
        model=str(options.model),
        folder=options.out,
        device=options.device,
        batch_rows=options.batch_rows,
        cutoff_len=0,
        packed_rows=0,
        lora_rank=options.lora_rank,
        limit_s=options.limit_s,
    )
    command = [sys.executable, "-m", "luthier", "train", str(path)]
    usage = run_process(command, options.out / f"{kind}.log", inputs)
    if usage.others is not None and usage.others > DISTURBED:
        print(f"disturbed: other processes took {usage.others:.0%} meanwhile", file=sys.stderr)
    folder = options.out / kind
    refuse_lost_trackers(folder)
    times = read_times(folder, options.warmup)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    return times


def refuse_lost_trackers(folder: Path) -> None:
    """Refuse a run in which a tracker was switched off: it cost nothing because it did nothing.

    Raises:
        BenchmarkError: One was.
    """
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    for notice in manifest["notices"]:
        if notice["setting"] == "report_to":
            raise BenchmarkError(f"{folder.name}: {notice['asked']}: {notice['reason']}")


def read_times(folder: Path, warmup: int) -> Times:
    """Read the times of a run behind its first steps.

    Args:
        folder: The run's.
        warmup: Steps that are not counted.
    """
    ends_s = json.loads((folder / "clock.json").read_text(encoding="utf-8"))
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    counted = [record for record in records if record["step"] > warmup]
    return Times(
        total=ends_s[-1] - ends_s[warmup - 1],
        steps=sum(r["seconds_per_step"] for r in counted if r["kind"] == "train"),
        evaluations=sum(r["eval_seconds"] for r in counted if r["kind"] == "eval"),
        samples=sum(r["seconds"] for r in counted if r["kind"] == "sample"),
    )


def table(times: Mapping[str, Sequence[Times]], num_steps: int) -> str:
    """Return the table of all kinds of run.

    Args:
        times: By kind, one a round.
        num_steps: That they are of.
    """
    lines = [
        "| watching | seconds a step | overhead | of it validation | samples | the rest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    plain = mean(found.between for found in times["off"])
    for kind, found in times.items():
        steps = mean(one.steps for one in found)
        overhead = mean(one.between for one in found) - plain
        evaluations = mean(one.evaluations for one in found)
        samples = mean(one.samples for one in found)
        shares = [overhead, evaluations, samples, overhead - evaluations - samples]
        cells = [f"{100 * share / steps:+.2f} %" for share in shares]
        if kind == "off":
            cells = ["-"] * 4
        lines.append(f"| {kind} | {steps / num_steps:.3f} | {' | '.join(cells)} |")
    spread = [f"{kind} {', '.join(f'{one.total:.1f}' for one in f)}" for kind, f in times.items()]
    return "\n".join([*lines, "", f"Seconds of each run: {'; '.join(spread)}"])


if __name__ == "__main__":
    main()
